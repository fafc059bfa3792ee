// Finds and loads the runtime for an artifact.
#include <dlfcn.h>

#include "runner.h"

namespace runner {
namespace {

struct Library {
  const char* suffix;
  const char* runtime;
  const char* file;
  void* handle;
};

Library libraries[] = {{".onnx", "onnxruntime", "libonnxruntime.so.1", nullptr},
                       {".pte", "executorch", "executorch.so", nullptr}};

Library& loaded(const std::string& suffix, const std::string& label) {
  for (Library& library : libraries) {
    if (suffix != library.suffix) continue;
    if (!library.handle)
      library.handle = dlopen((home_folder() + "/" + library.file).c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (!library.handle)
      throw Failure{"RuntimeFailedError",
                    label + " needs " + library.runtime +
                        ", which cannot be loaded on the device: " + dlerror() + ".",
                    "`mobiledeploy device setup URI` installs it again."};
    return library;
  }
  throw Failure{"UsageError", label + " is a " + suffix + " file, which the native runner cannot run.",
                "Use the .onnx or .pte of the same network: all hold the same integers."};
}

const ExecuTorchApi& executorch(const std::string& label) {
  void* found = dlsym(loaded(".pte", label).handle, "executorch_api");
  if (!found)
    throw Failure{"RuntimeFailedError", "executorch.so on the device is of another version.",
                  "`mobiledeploy device setup URI` installs it again."};
  return *static_cast<const ExecuTorchApi*>(found);
}

}  // namespace

std::string suffix_of(const std::string& path) {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(dot);
}

void load_runtime(const std::string& suffix, const std::string& label) { loaded(suffix, label); }

std::vector<std::string> load_all_runtimes() {
  const std::string label = "The self-test";
  return {"onnxruntime " + onnxruntime_version(loaded(".onnx", label).handle),
          "executorch " + std::string(executorch(label).version)};
}

std::unique_ptr<Network> open_network(const std::string& path, const std::string& label,
                                      int threads, bool profiled) {
  const std::string suffix = suffix_of(path);
  void* library = loaded(suffix, label).handle;
  if (suffix == ".onnx") return open_onnxruntime(library, path, label, threads, profiled);
  return executorch(label).open(path, label, threads, profiled);
}

size_t Network::sample_bytes() const { return product(input_shape) * size_of(input_type); }

}  // namespace runner
