// Serves one request and removes all its files, as `devices/agent/serve.py` does.
//
// Input (stdin): one line of JSON, then the bytes of the files that it lists. The end of the pipe
// means that the other side has stopped waiting. Output (stdout): JSON text sequences (RFC 7464).
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <thread>

#include "runner.h"

namespace runner {
namespace {

constexpr const char* kDiskRemedy =
    "Free space on the device, or set TMPDIR there to a folder with more space.";
constexpr size_t kChunk = 1 << 16;
constexpr size_t kMaxLine = 1 << 22;  // of a request: a thousand artifacts with the longest paths

volatile sig_atomic_t stopped = 0;

struct Stopped {};  // a signal arrived, or the other side is gone

Failure on_disk(const std::string& path) {
  return {"RuntimeFailedError",
          "Could not write " + path + " on the device: " + strerror(errno) + ".", kDiskRemedy};
}

void stop(int) { stopped = 1; }

void set_signals() {
  for (int number : {SIGINT, SIGPIPE, SIGXFSZ}) signal(number, SIG_IGN);
  struct sigaction action{};
  action.sa_handler = stop;  // without SA_RESTART: what waits is interrupted
  for (int number : {SIGTERM, SIGHUP}) sigaction(number, &action, nullptr);
}

// Messages go to what stdout was; what the runtimes print goes to stderr.
class Messages {
 public:
  Messages() : file_(dup(1)) { dup2(2, 1); }

  void send(const json& message) const {
    const std::string line =
        "\x1e" + message.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
    for (size_t done = 0; done < line.size();) {
      const ssize_t wrote = write(file_, line.data() + done, line.size() - done);
      if (wrote < 0 && errno == EINTR && !stopped) continue;
      if (wrote < 0) throw Stopped{};
      done += wrote;
    }
  }

  void send_error(const Failure& error) const {
    send({{"error", {{"type", error.type}, {"message", error.message}, {"remedy", error.remedy}}}});
  }

 private:
  int file_;
};

// Reads up to `size` bytes from stdin; 0 at its end.
size_t read_some(char* buffer, size_t size) {
  for (;;) {
    if (stopped) throw Stopped{};
    const ssize_t got = read(0, buffer, size);
    if (got >= 0) return got;
    if (errno != EINTR) throw Stopped{};
  }
}

// Reads a line; nothing if stdin ends before its first byte.
std::optional<std::string> read_line() {
  std::string line;
  for (char byte = 0; read_some(&byte, 1) == 1; line += byte) {
    if (byte == '\n') return line;
    if (line.size() == kMaxLine)
      throw unreadable("it is longer than " + std::to_string(kMaxLine) + " bytes.");
  }
  if (line.empty()) return std::nullopt;
  return line;
}

// Copies `size` bytes; if stdin ends early, the sha256 of the file will be wrong.
void copy_to(const std::string& path, size_t size) {
  FILE* file = fopen(path.c_str(), "wb");
  if (!file) throw on_disk(path);
  setvbuf(file, nullptr, _IONBF, 0);
  std::vector<char> buffer(kChunk);
  while (size > 0) {
    const size_t got = read_some(buffer.data(), std::min(size, kChunk));
    if (got == 0) break;
    if (fwrite(buffer.data(), 1, got, file) != got) {
      const Failure failure = on_disk(path);
      fclose(file);
      throw failure;
    }
    size -= got;
  }
  if (fclose(file) != 0) throw on_disk(path);
}

void receive(const std::vector<FileEntry>& files, const std::string& folder) {
  uint64_t needed = 0;
  for (const FileEntry& file : files) needed += file.size;
  struct statvfs disk{};
  statvfs(folder.c_str(), &disk);
  const uint64_t free_bytes = uint64_t{disk.f_bavail} * disk.f_frsize;
  if (needed > free_bytes)
    throw Failure{"RuntimeFailedError",
                  folder + " on the device has " + std::to_string(free_bytes) + " bytes free; " +
                      std::to_string(needed) + " are needed.",
                  kDiskRemedy};
  for (const FileEntry& file : files) {
    const std::string path = folder + "/" + file.name;
    std::error_code error;
    std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
    copy_to(path, file.size);
    const std::string found = sha256(path);
    if (found != file.sha256)
      throw Failure{"RuntimeFailedError",
                    file.name + " arrived damaged: its sha256 is " + found.substr(0, 12) +
                        "..., expected " + file.sha256.substr(0, 12) + "...",
                    "Run the command again. If it fails again, the connection is unreliable."};
  }
}

void remove_folder(const std::string& folder) {
  std::error_code error;
  std::filesystem::remove_all(folder, error);
}

void bind_to(const std::vector<int>& cores) {
  const std::vector<int> usable = usable_cores();
  const auto refused = [&](const std::string& reason) {
    return Failure{"UsageError",
                   "The process cannot be bound to the cores [" +
                       joined({cores.begin(), cores.end()}) + "]" + reason,
                   "Choose --cpu-affinity from those that it may use."};
  };
  for (int core : cores)
    if (!std::count(usable.begin(), usable.end(), core))
      throw refused("; it may use [" + joined({usable.begin(), usable.end()}) + "].");
  const int count = *std::max_element(cores.begin(), cores.end()) + 1;
  cpu_set_t* set = CPU_ALLOC(count);
  const size_t size = CPU_ALLOC_SIZE(count);
  CPU_ZERO_S(size, set);
  for (int core : cores) CPU_SET_S(core, size, set);
  const int failed = sched_setaffinity(0, size, set);
  CPU_FREE(set);
  if (failed) throw refused(std::string(": ") + strerror(errno) + ".");
}

// Runs the task in this process, sends its result or its error, and exits.
[[noreturn]] void run_and_exit(const Request& request, const std::string& folder,
                               const Messages& messages, int parent) {
  for (int number : {SIGTERM, SIGHUP}) signal(number, SIG_DFL);
  // the end of this pipe is the parent's death: then this process cleans up in its place
  std::thread([parent, folder] {
    char byte = 0;
    while (read(parent, &byte, 1) < 0 && errno == EINTR) {
    }
    remove_folder(folder);
    _exit(1);
  }).detach();
  setenv("TMPDIR", folder.c_str(), 1);  // temporary files of the runtimes are removed with it
  setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // it would leave files in the home folder
  const Send send = [&](const json& message) { messages.send(message); };
  int code = 1;
  try {
    if (!request.affinity.empty()) bind_to(request.affinity);
    send({{"result", run_task(request, folder, send)}});
    code = 0;
  } catch (const Failure& error) {
    messages.send_error(error);
    code = 0;
  } catch (const std::bad_alloc&) {
    messages.send_error({"RuntimeFailedError", "The device has no memory for the task.",
                         "Free memory on the device, or export the model again: it may be damaged."});
    code = 0;
  } catch (const Stopped&) {
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
  }
  _exit(code);
}

std::string signal_name(int number) {
  const char* name = sigabbrev_np(number);
  return name ? std::string("SIG") + name : "signal " + std::to_string(number);
}

// Runs a task in a child process; waits for its end, the end of stdin, or the time limit.
void run_in_child(const Request& request, const std::string& folder, const Messages& messages) {
  int ours[2], theirs[2];  // the death of one process closes its pipe in the other
  if (pipe2(ours, O_CLOEXEC) != 0 || pipe2(theirs, O_CLOEXEC) != 0) throw on_disk("a pipe");
  const pid_t child = fork();
  if (child < 0)
    throw Failure{"RuntimeFailedError",
                  std::string("The device cannot start a process: ") + strerror(errno) + ".", ""};
  if (child == 0) {
    close(ours[0]);
    close(theirs[1]);
    run_and_exit(request, folder, messages, theirs[0]);
  }
  close(ours[1]);
  close(theirs[0]);
  pollfd waited[] = {{0, POLLIN, 0}, {ours[0], POLLIN, 0}};
  const int ready = poll(waited, 2, static_cast<int>(std::min(1e3 * request.limit_s, 2e9)));
  if (!waited[1].revents) kill(child, SIGKILL);
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  char limit[32];
  snprintf(limit, sizeof limit, "%g", request.limit_s);
  if (ready == 0)
    messages.send({{"died", {{"how", std::string("took more than ") + limit + " s and was stopped"}}}});
  else if (WIFSIGNALED(status))
    messages.send({{"died", {{"how", "was ended by " + signal_name(WTERMSIG(status))}}}});
  else if (WEXITSTATUS(status))
    messages.send({{"died", {{"how", "ended with code " + std::to_string(WEXITSTATUS(status))}}}});
}

void serve(const Messages& messages) {
  messages.send({{"hello", describe()}});
  const std::optional<std::string> line = read_line();
  if (!line) return;  // only the description was wanted
  const Request request = parse_request(*line);
  const char* parent = getenv("TMPDIR");
  std::string folder = std::string(parent ? parent : "/tmp") + "/mobiledeploy-XXXXXX";
  if (!mkdtemp(folder.data())) throw on_disk(folder);
  try {
    receive(request.files, folder);
    run_in_child(request, folder, messages);
  } catch (...) {
    remove_folder(folder);
    throw;
  }
  remove_folder(folder);
}

}  // namespace
}  // namespace runner

int main() {
  try {
    runner::set_signals();
    const runner::Messages messages;
    try {
      runner::serve(messages);
    } catch (const runner::Failure& error) {
      messages.send_error(error);
    }
    return 0;
  } catch (const runner::Stopped&) {
    return 1;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
  }
}
