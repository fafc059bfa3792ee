// An .onnx file in ONNX Runtime, on the CPU, through its C API.
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include "runner.h"

namespace runner {
namespace {

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
    size_t inputs = 0, outputs = 0;
    check(api_->SessionGetInputCount(session_, &inputs));
    check(api_->SessionGetOutputCount(session_, &outputs));
    if (inputs != 1 || outputs != 1)
      throw Failure{"ArtifactError",
                    label + " has " + std::to_string(inputs) + " inputs and " +
                        std::to_string(outputs) + " outputs; expected one of each.",
                    "Export the model with `mobiledeploy export`."};
    check(api_->GetAllocatorWithDefaultOptions(&allocator_));
    check(api_->SessionGetInputName(session_, 0, allocator_, &input_name_));
    check(api_->SessionGetOutputName(session_, 0, allocator_, &output_name_));
    read_input_shape();
    check(api_->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory_));
  }

  ~OnnxRuntime() override {
    api_->ReleaseValue(output_);
    api_->ReleaseSession(session_);
    api_->ReleaseSessionOptions(options_);
    api_->ReleaseMemoryInfo(memory_);
    api_->ReleaseEnv(environment_);
  }

  const float* run(const float* batch) override {
    Shape shape{batch_size};
    shape.insert(shape.end(), input_shape.begin(), input_shape.end());
    OrtValue* input = nullptr;
    check(api_->CreateTensorWithDataAsOrtValue(
        memory_, const_cast<float*>(batch), 4 * input_values(), shape.data(), shape.size(),
        ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input));
    api_->ReleaseValue(output_);
    output_ = nullptr;
    const char* const names[] = {input_name_, output_name_};
    OrtStatus* status = api_->Run(session_, nullptr, names, &input, 1, names + 1, 1, &output_);
    api_->ReleaseValue(input);
    check(status);
    if (output_shape.empty()) read_output_shape();
    void* values = nullptr;
    check(api_->GetTensorMutableData(output_, &values));
    return static_cast<const float*>(values);
  }

  std::string end_profile() override {
    char* path = nullptr;
    check(api_->SessionEndProfiling(session_, allocator_, &path));
    return path;
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

  void read_input_shape() {
    OrtTypeInfo* info = nullptr;
    check(api_->SessionGetInputTypeInfo(session_, 0, &info));
    const OrtTensorTypeAndShapeInfo* tensor = nullptr;
    check(api_->CastTypeInfoToTensorInfo(info, &tensor));
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    Shape shape = tensor ? read_shape(tensor) : Shape{};
    if (tensor) check(api_->GetTensorElementType(tensor, &type));
    api_->ReleaseTypeInfo(info);
    if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || shape.empty())
      throw not_float(label_);
    batch_size = shape[0] > 0 ? shape[0] : 1;
    input_shape.assign(shape.begin() + 1, shape.end());
    for (int64_t size : input_shape)
      if (size < 1)
        throw Failure{"ArtifactError",
                      label_ + " has no fixed input size, so it has no one latency.",
                      "Export it with a fixed resolution."};
  }

  void read_output_shape() {
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api_->GetTensorTypeAndShape(output_, &info));
    const Shape shape = read_shape(info);
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    check(api_->GetTensorElementType(info, &type));
    api_->ReleaseTensorTypeAndShapeInfo(info);
    if (type != ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT || shape.empty() || shape[0] != batch_size)
      throw Failure{"ArtifactError", label_ + " does not return float32 rows, one per image.",
                    "Export the model with `mobiledeploy export`."};
    output_shape.assign(shape.begin() + 1, shape.end());
  }

  Shape read_shape(const OrtTensorTypeAndShapeInfo* info) {
    size_t count = 0;
    check(api_->GetDimensionsCount(info, &count));
    Shape shape(count);
    check(api_->GetDimensions(info, shape.data(), count));
    return shape;
  }

  // Returns the message of a status, "" if it is good, and releases it.
  std::string error(OrtStatus* status) {
    if (!status) return "";
    const std::string text = api_->GetErrorMessage(status);
    api_->ReleaseStatus(status);
    return text.empty() ? "unknown error" : text;
  }

  void check(OrtStatus* status) {
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
  OrtValue* output_ = nullptr;
  char *input_name_ = nullptr, *output_name_ = nullptr;
};

}  // namespace

std::string onnxruntime_version(void* library) { return api_base(library)->GetVersionString(); }

std::unique_ptr<Network> open_onnxruntime(void* library, const std::string& path,
                                          const std::string& label, int threads, bool profiled) {
  return std::make_unique<OnnxRuntime>(library, path, label, threads, profiled);
}

}  // namespace runner
