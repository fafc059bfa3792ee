/* Stands in for libonnxruntime.so.1: it passes everything on to the real library, which lies beside
 * it as `real`, and does what FAULT says. PLACE is where the fault shows: load, create or run. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <onnxruntime_c_api.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const OrtApi *real;
static OrtApi changed;
static OrtStatus *run(OrtSession *, const OrtRunOptions *, const char *const *,
                      const OrtValue *const *, size_t, const char *const *, size_t, OrtValue **);

static void crash(void) { raise(SIGSEGV); }
static void stop(void) { raise(SIGABRT); }
static void memory(void) { raise(SIGKILL); }
static void parent(void) { kill(getppid(), SIGKILL), pause(); }
static void hang(void) {
#ifdef MARK
  close(open(MARK, O_CREAT | O_WRONLY, 0600));
#endif
  pause();
}
static void noise(void) { printf("noise{\"result\": 1}\n"), fflush(stdout); }
static void nothing(void) {}

static OrtStatus *refuse(void) { return real->CreateStatus(ORT_FAIL, "no luck"); }
static OrtStatus *fine(void) { return NULL; }
static OrtStatus *fatal(void) { return crash(), NULL; }

static OrtStatus *create(const OrtEnv *e, const char *path, const OrtSessionOptions *o,
                         OrtSession **s) {
  OrtStatus *status = AT_CREATE();
  return status ? status : real->CreateSession(e, path, o, s);
}

static OrtStatus *run(OrtSession *s, const OrtRunOptions *o, const char *const *in,
                      const OrtValue *const *values, size_t n, const char *const *out, size_t m,
                      OrtValue **results) {
  ACT();
  OrtStatus *status = AT_RUN();
  if (!status) status = real->Run(s, o, in, values, n, out, m, results);
#ifdef NEGATE
  OrtTensorTypeAndShapeInfo *info;
  size_t count;
  float *data;
  real->GetTensorTypeAndShape(*results, &info);
  real->GetTensorShapeElementCount(info, &count);
  real->GetTensorMutableData(*results, (void **)&data);
  for (size_t i = 0; i < count; i++) data[i] = -data[i];
#endif
  return status;
}

static const OrtApi *api(uint32_t version) {
  Dl_info self;
  char path[4096];
  dladdr((void *)&real, &self);
  snprintf(path, sizeof path, "%.*s/real", (int)(strrchr(self.dli_fname, '/') - self.dli_fname),
           self.dli_fname);
  const OrtApiBase *(*base)(void) = dlsym(dlopen(path, RTLD_NOW), "OrtGetApiBase");
  real = base()->GetApi(version);
  changed = *real;
  changed.CreateSession = create;
  changed.Run = run;
  return &changed;
}

static const char *version(void) { return "1.32.0"; }

const OrtApiBase *OrtGetApiBase(void) {
  static const OrtApiBase base = {api, version};
  AT_LOAD();
  return &base;
}
