// The native runner: the same protocol and the same tasks as `devices/agent`, without Python.
//
// `serve.cpp` receives one request, `tasks.cpp` carries it out in a child process, and each runtime
// is a `Network`. The runtimes are loaded in the child only: if one crashes, the parent reports it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace runner {

using nlohmann::json;

// `devices/agent/machine.py` has the same number.
constexpr int kProtocol = 3;

using Shape = std::vector<int64_t>;
using Send = std::function<void(const json&)>;

// An error that the other side raises; `type` is the name of a class of `mobiledeploy.errors`.
struct Failure {
  std::string type, message, remedy;
};

// An artifact of a request: its file, its name in errors, and the file of its inputs.
struct ArtifactEntry {
  std::string file, label;
  std::optional<std::string> inputs;
};

// A file whose bytes follow the request.
struct FileEntry {
  std::string name, sha256;
  uint64_t size;
};

// `mobiledeploy/devices/request.py` describes the fields.
struct Request {
  std::string task;
  std::vector<ArtifactEntry> artifacts;
  std::vector<FileEntry> files;
  std::vector<int> affinity;
  int threads = 1, rounds = 0, warmup = 0;
  uint32_t seed = 0;
  std::optional<double> duration_s;
  double limit_s = 0;
};

// A type of numbers as NumPy writes it: the byte order, the kind, and the size in bytes.
using Type = std::string;

// The types of an input: normalised images, or pixels.
inline const Type kFloat32 = "<f4", kUint8 = "|u1";

inline size_t size_of(const Type& type) { return std::stoul(type.substr(2)); }
inline const char* name_of(const Type& type) { return type == kUint8 ? "uint8" : "float32"; }

inline Failure wrong_input(const std::string& label) {
  return {"ArtifactError",
          label + " takes neither float32 images nor uint8 pixels, which the native runner needs.",
          "Run it in Python (--runner python), or export the network with `mobiledeploy export`."};
}

// `found`: a type or a shape.
inline Failure wrong_output(const std::string& label, const std::string& found) {
  return {"ArtifactError", label + " returns " + found + "; expected numbers, one row per image.",
          "Only outputs like these can be compared. `mobiledeploy export` writes no others."};
}

inline Failure wrong_count(const std::string& label, size_t inputs, size_t outputs) {
  return {"ArtifactError",
          label + " has " + std::to_string(inputs) + " inputs and " + std::to_string(outputs) +
              " outputs; expected one input, and outputs.",
          "Export the model with `mobiledeploy export`."};
}

constexpr int64_t kMaxValues = int64_t{1} << 48;  // of a tensor: more than any memory holds
constexpr size_t kPadding = 128;  // values that XNNPACK may read behind a tensor

// Dense values, with room for reads behind them.
class Array {
 public:
  Array(Type type, Shape shape);

  Type type;
  Shape shape;

  // Adds the rows of another array of the same type and shape of a row.
  void append(const Array& rows);

  size_t size_bytes() const { return data_.size() - kPadding * size_of(type); }
  uint8_t* data() { return data_.data(); }
  const uint8_t* data() const { return data_.data(); }
  float* floats() { return reinterpret_cast<float*>(data_.data()); }

 private:
  std::vector<uint8_t> data_;
};

// One operator of a profile, with its time in each run.
struct OperatorTimes {
  std::string name, kind;
  std::vector<double> times_us;
};

// A loaded network with one input.
class Network {
 public:
  virtual ~Network() = default;
  // Runs one batch of `input_type`.
  virtual void run(const uint8_t* batch) = 0;
  // Returns the outputs of the last run, (batch_size, ...) each.
  virtual std::vector<Array> outputs() const = 0;
  // Ends the profile; returns the operators in the order in which they ran.
  virtual std::vector<OperatorTimes> end_profile() = 0;

  std::string runtime;  // name and version
  int64_t batch_size = 1;
  Type input_type = kFloat32;
  Shape input_shape;  // of one sample: (C, H, W), or (H, W, C) of pixels

  size_t sample_bytes() const;
};

// What `executorch.so` exports: ExecuTorch's libraries are loaded with it, when a .pte needs them.
struct ExecuTorchApi {
  const char* version;
  std::unique_ptr<Network> (*open)(const std::string& path, const std::string& label, int threads,
                                   bool profiled);
};

// ---- runtimes.cpp

// Loads the runtime's library for a suffix, such as ".onnx". Throws Failure if it cannot.
void load_runtime(const std::string& suffix, const std::string& label);
std::vector<std::string> load_all_runtimes();  // returns their names and versions
std::unique_ptr<Network> open_network(const std::string& path, const std::string& label,
                                      int threads, bool profiled = false);
std::string suffix_of(const std::string& path);

// ---- onnxruntime.cpp

std::string onnxruntime_version(void* library);
std::unique_ptr<Network> open_onnxruntime(void* library, const std::string& path,
                                          const std::string& label, int threads, bool profiled);

// ---- machine.cpp

json describe();
json conditions();
bool products_saturate();
std::vector<int> usable_cores();
std::string home_folder();  // the folder of this program

// The peak of resident memory since construction, less the resident memory at construction.
class PeakMemory {
 public:
  PeakMemory();
  int64_t added_bytes() const;

 private:
  int64_t before_;
};

// ---- files.cpp

std::string read_file(const std::string& path);
std::string sha256(const std::string& path);
std::string base64(const std::string& data);
std::string to_npy(const Array& array);
Array from_npy(const std::string& data, const std::string& label);
int64_t product(const Shape& shape);  // throws bad_alloc above kMaxValues
std::string joined(const Shape& shape);

// ---- request.cpp

// Throws Failure if a value is missing, of another type or out of range, or a path leads elsewhere.
Request parse_request(const std::string& line);
Failure unreadable(const std::string& reason);

// ---- tasks.cpp

json run_task(const Request& request, const std::string& folder, const Send& send);

}  // namespace runner
