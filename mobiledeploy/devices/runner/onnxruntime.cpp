// An .onnx file in ONNX Runtime, on the CPU, through its C API.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstring>
#include <map>

#include "runner.h"

namespace runner {
namespace {

// Returns the name of an element type; "" if it is not of numbers that NumPy has.
Type type_of(ONNXTensorElementDataType type) {
  switch (type) {
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return "<f2";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return kFloat32;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE: return "<f8";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8: return "|i1";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16: return "<i2";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return "<i4";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return "<i8";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return kUint8;
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16: return "<u2";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32: return "<u4";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64: return "<u8";
    case ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL: return "|b1";
    default: return "";
  }
}

const OrtApiBase* api_base(void* library) {
  return reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"))();
}

class OnnxRuntime : public Network {
 public:
  OnnxRuntime(void* library, const std::string& path, const std::string& label, int threads,
              bool profiled)
      : label_(label) {
    api_ = api_base(library)->GetApi(ORT_API_VERSION);
    const std::string version = onnxruntime_version(library);
    runtime = "onnxruntime " + version;
    const auto rejected = [&](const std::string& reason) {
      return Failure{
          "ArtifactError", "ONNX Runtime " + version + " cannot load " + label + ": " + reason,
          "Export the model again: the file is damaged, not ONNX, or newer than the runtime."};
    };
    std::string reason = error(api_->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "mobiledeploy", &environment_));
    if (reason.empty()) reason = set_options(path, threads, profiled);
    if (reason.empty()) reason = error(api_->CreateSession(environment_, path.c_str(), options_, &session_));
    if (!reason.empty()) throw rejected(reason);
    read_names();
    read_input();
    check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
  }

  ~OnnxRuntime() override {
    release_outputs();
    api_->ReleaseSession(session_);
    api_->ReleaseSessionOptions(options_);
    api_->ReleaseMemoryInfo(memory_);
    api_->ReleaseEnv(environment_);
  }

  void run(const uint8_t* batch) override {
    Shape shape{batch_size};
    shape.insert(shape.end(), input_shape.begin(), input_shape.end());
    OrtValue* input = nullptr;
    check(api_->CreateTensorWithDataAsOrtValue(
        memory_, const_cast<uint8_t*>(batch), batch_size * sample_bytes(), shape.data(),
        shape.size(), element_type_, &input));
    release_outputs();
    OrtStatus* status = api_->Run(session_, nullptr, &input_name_, &input, 1,
                                  output_names_.data(), outputs_.size(), outputs_.data());
    api_->ReleaseValue(input);
    check(status);
  }

  std::vector<Array> outputs() const override {
    std::vector<Array> all;
    for (OrtValue* output : outputs_) all.push_back(copy(output));
    return all;
  }

  std::vector<OperatorTimes> end_profile() override {
    static const std::string kKernel = "_kernel_time";
    char* path = nullptr;
    check(api_->SessionEndProfiling(session_, allocator_, &path));
    std::vector<OperatorTimes> kernels;
    std::map<std::string, size_t> places;  // by the index of the node
    for (const json& event : json::parse(read_file(path))) {
      std::string name = event.value("name", "");
      if (event.value("cat", "") != "Node" || name.size() < kKernel.size() ||
          name.compare(name.size() - kKernel.size(), kKernel.size(), kKernel) != 0)
        continue;
      const json& details = event.at("args");
      const auto [place, is_new] = places.try_emplace(details.at("node_index"), kernels.size());
      if (is_new) {
        const std::string kind = details.at("op_name");
        name = kind + " " + name.substr(0, name.size() - kKernel.size());
        const json shapes = details.value("output_type_shape", json::array());
        if (!shapes.empty() && !shapes[0].empty()) name += " " + shapes[0].begin()->dump();
        kernels.push_back({name, kind, {}});
      }
      kernels[place->second].times_us.push_back(event.at("dur"));
    }
    return kernels;
  }

 private:
  std::string set_options(const std::string& path, int threads, bool profiled) {
    std::string reason = error(api_->CreateSessionOptions(&options_));
    const auto set = [&](OrtStatus* status) { reason += error(status); };
    set(api_->SetIntraOpNumThreads(options_, threads));
    set(api_->SetInterOpNumThreads(options_, 1));
    set(api_->SetSessionLogSeverityLevel(options_, ORT_LOGGING_LEVEL_FATAL));
    // workers that keep spinning after an inference would take CPU time from the next network
    set(api_->AddSessionConfigEntry(options_, "session.force_spinning_stop", "1"));
    if (products_saturate())
      set(api_->AddSessionConfigEntry(options_, "session.x64quantprecision", "1"));
    if (profiled) set(api_->EnableProfiling(options_, (path + ".profile").c_str()));
    return reason;
  }

  void read_names() {
    size_t inputs = 0, outputs = 0;
    check(api_->SessionGetInputCount(session_, &inputs));
    check(api_->SessionGetOutputCount(session_, &outputs));
    if (inputs != 1 || outputs == 0) throw wrong_count(label_, inputs, outputs);
    check(api_->GetAllocatorWithDefaultOptions(&allocator_));
    char* name = nullptr;
    check(api_->SessionGetInputName(session_, 0, allocator_, &name));
    input_name_ = name;
    for (size_t index = 0; index < outputs; index++) {
      check(api_->SessionGetOutputName(session_, index, allocator_, &name));
      output_names_.push_back(name);
    }
    outputs_.resize(outputs);
  }

  void read_input() {
    OrtTypeInfo* info = nullptr;
    check(api_->SessionGetInputTypeInfo(session_, 0, &info));
    const OrtTensorTypeAndShapeInfo* tensor = nullptr;
    check(api_->CastTypeInfoToTensorInfo(info, &tensor));
    const Shape shape = tensor ? read_shape(tensor) : Shape{};
    if (tensor) check(api_->GetTensorElementType(tensor, &element_type_));
    api_->ReleaseTypeInfo(info);
    if (element_type_ == ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8)
      input_type = kUint8;
    else if (element_type_ != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
      throw wrong_input(label_);
    if (shape.empty()) throw wrong_input(label_);
    batch_size = shape[0] > 0 ? shape[0] : 1;
    input_shape.assign(shape.begin() + 1, shape.end());
    for (int64_t size : input_shape)
      if (size < 1)
        throw Failure{"ArtifactError",
                      label_ + " has no fixed input size, so it has no one latency.",
                      "Export it with a fixed resolution."};
  }

  Array copy(OrtValue* output) const {
    int is_tensor = 0;
    check(api_->IsTensor(output, &is_tensor));
    if (!is_tensor) throw wrong_output(label_, "a sequence or a map");
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_->GetTensorTypeAndShape(output, &info));
    const Shape shape = read_shape(info);
    ONNXTensorElementDataType element = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    check(api_->GetTensorElementType(info, &element));
    api_->ReleaseTensorTypeAndShapeInfo(info);
    const Type type = type_of(element);
    if (type.empty())
      throw wrong_output(label_, element == ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING
                                     ? "text"
                                     : "ONNX's type " + std::to_string(element));
    if (shape.empty() || shape[0] != batch_size)
      throw wrong_output(label_, "the shape (" + joined(shape) + ")");
    Array copied(type, shape);
    void* values = nullptr;
    check(api_->GetTensorMutableData(output, &values));
    memcpy(copied.data(), values, copied.size_bytes());
    return copied;
  }

  void release_outputs() {
    for (OrtValue*& output : outputs_) {
      api_->ReleaseValue(output);
      output = nullptr;
    }
  }

  Shape read_shape(const OrtTensorTypeAndShapeInfo* info) const {
    size_t count = 0;
    check(api_->GetDimensionsCount(info, &count));
    Shape shape(count);
    check(api_->GetDimensions(info, shape.data(), count));
    return shape;
  }

  // Returns the message of a status, "" if it is good, and releases it.
  std::string error(OrtStatus* status) const {
    if (!status) return "";
    const std::string text = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    return text.empty() ? "unknown error" : text;
  }

  void check(OrtStatus* status) const {
    const std::string reason = error(status);
    if (!reason.empty())
      throw Failure{"RuntimeFailedError",
                    "ONNX Runtime failed while running " + label_ + ": " + reason,
                    "Export the model again, or update ONNX Runtime on the device."};
  }

  std::string label_;
  const OrtApi* api_ = nullptr;
  OrtEnv* environment_ = nullptr;
  OrtSessionOptions* options_ = nullptr;
  OrtSession* session_ = nullptr;
  OrtMemoryInfo* memory_ = nullptr;
  OrtAllocator* allocator_ = nullptr;
  ONNXTensorElementDataType element_type_ = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  const char* input_name_ = nullptr;
  std::vector<const char*> output_names_;
  std::vector<OrtValue*> outputs_;  // of the last run
};

}  // namespace

std::string onnxruntime_version(void* library) { return api_base(library)->GetVersionString(); }

std::unique_ptr<Network> open_onnxruntime(void* library, const std::string& path,
                                          const std::string& label, int threads, bool profiled) {
  return std::make_unique<OnnxRuntime>(library, path, label, threads, profiled);
}

}  // namespace runner
