// A .pte file in ExecuTorch. This file becomes `executorch.so`, which needs ExecuTorch's libraries.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/core/event_tracer.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstring>

#include "runner.h"

// The wheel has the library of threads, but no header for this class.
namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  size_t get_thread_count() const;
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

namespace runner {
namespace {

using executorch::aten::ArrayRef;
using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::AllocatorID;
using executorch::runtime::ChainID;
using executorch::runtime::DebugHandle;
using executorch::runtime::DelegateDebugIntId;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::EventTracer;
using executorch::runtime::EventTracerEntry;
using executorch::runtime::EventTracerFilterBase;
using executorch::runtime::LoggedEValueType;
using executorch::runtime::Program;
using executorch::runtime::Result;

constexpr const char* kRuntime = "executorch " EXECUTORCH_VERSION;

Failure rejected(const std::string& label, Error error) {
  return {"ArtifactError",
          std::string(kRuntime) + " cannot load " + label + ": " +
              executorch::runtime::to_string(error) + ".",
          "Export the model again: the file is damaged, or it needs operators or backends that "
          "this runtime does not have."};
}

Failure failed(const std::string& label, Error error) {
  return {"RuntimeFailedError",
          "ExecuTorch failed while running " + label + ": " +
              executorch::runtime::to_string(error) + ".",
          "Export the model again, or update ExecuTorch on the device."};
}

// Keeps the time of every operator in whole inferences: of XNNPACK's operators, which report theirs
// after each run of their delegate, and of the kernels between the delegates.
class OperatorTracer : public EventTracer {
 public:
  std::vector<OperatorTimes> operators;

  // A run begins.
  void create_event_block(const char*) override { place_ = 0; }

  EventTracerEntry start_profiling(const char* name, ChainID, DebugHandle) override {
    names_.push_back(name);
    return entry();
  }

  void end_profiling(EventTracerEntry event) override {
    const std::string name = names_.back();  // scopes end in the reverse order
    names_.pop_back();
    if (name.rfind(kKernel, 0) == 0) add(name.substr(strlen(kKernel)), event.start_time, now());
  }

  void log_profiling_delegate(const char* name, DelegateDebugIntId index, et_timestamp_t start,
                              et_timestamp_t end, const void*, size_t) override {
    add(name ? name : "delegate's operator " + std::to_string(index), start, end);
  }

  EventTracerEntry start_profiling_delegate(const char* name, DelegateDebugIntId index) override {
    names_.push_back(name ? name : "delegate's operator " + std::to_string(index));
    return entry();
  }

  void end_profiling_delegate(EventTracerEntry event, const void*, size_t) override {
    add(names_.back(), event.start_time, now());
    names_.pop_back();
  }

  void track_allocation(AllocatorID, size_t) override {}
  AllocatorID track_allocator(const char*) override { return 0; }
  void set_delegation_intermediate_output_filter(EventTracerFilterBase*) override {}
  Result<bool> log_evalue(const EValue&, LoggedEValueType) override { return false; }
  Result<bool> log_intermediate_output_delegate(const char*, DelegateDebugIntId,
                                                const Tensor&) override {
    return false;
  }
  Result<bool> log_intermediate_output_delegate(const char*, DelegateDebugIntId,
                                                const ArrayRef<Tensor>) override {
    return false;
  }
  Result<bool> log_intermediate_output_delegate(const char*, DelegateDebugIntId,
                                                const int&) override {
    return false;
  }
  Result<bool> log_intermediate_output_delegate(const char*, DelegateDebugIntId,
                                                const bool&) override {
    return false;
  }
  Result<bool> log_intermediate_output_delegate(const char*, DelegateDebugIntId,
                                                const double&) override {
    return false;
  }

 private:
  static constexpr const char* kKernel = "native_call_";

  static et_timestamp_t now() { return executorch::runtime::pal_current_ticks(); }

  static EventTracerEntry entry() {
    EventTracerEntry event{};
    event.start_time = now();
    return event;
  }

  void add(const std::string& name, et_timestamp_t start, et_timestamp_t end) {
    if (place_ == operators.size())
      operators.push_back({name, name.substr(0, name.find(" #")), {}});
    const auto ns = executorch::runtime::pal_ticks_to_ns_multiplier();
    operators[place_++].times_us.push_back(1e-3 * static_cast<double>(end - start) *
                                           static_cast<double>(ns.numerator) /
                                           static_cast<double>(ns.denominator));
  }

  size_t place_ = 0;  // of the next operator within this run
  std::vector<std::string> names_;  // of the scopes that are open
};

std::unique_ptr<Module> load(const std::string& path, const std::string& label, int threads,
                             std::unique_ptr<OperatorTracer> tracer) {
  executorch::runtime::runtime_init();
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool->get_thread_count() != static_cast<size_t>(threads))
    pool->_unsafe_reset_threadpool(threads);
  auto module = std::make_unique<Module>(path, Module::LoadMode::Mmap, std::move(tracer));
  Error error = module->load(Program::Verification::InternalConsistency);
  if (error == Error::Ok) error = module->load_forward();
  if (error != Error::Ok) throw rejected(label, error);
  return module;
}

// Returns the name of a type; "" if it is not of numbers that NumPy has.
Type type_of(ScalarType type) {
  switch (type) {
    case ScalarType::Half: return "<f2";
    case ScalarType::Float: return kFloat32;
    case ScalarType::Double: return "<f8";
    case ScalarType::Char: return "|i1";
    case ScalarType::Short: return "<i2";
    case ScalarType::Int: return "<i4";
    case ScalarType::Long: return "<i8";
    case ScalarType::Byte: return kUint8;
    case ScalarType::Bool: return "|b1";
    default: return "";
  }
}

// Returns the values of a tensor in the order of its indices, however it lies in memory.
Array in_order(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  const auto strides = tensor.strides();
  Array values(type_of(tensor.scalar_type()), {sizes.begin(), sizes.end()});
  const auto* memory = static_cast<const uint8_t*>(tensor.const_data_ptr());
  const size_t bytes = size_of(values.type), count = tensor.numel();
  for (size_t index = 0; index < count; index++) {
    size_t rest = index, at = 0;
    for (size_t axis = sizes.size(); axis-- > 0; rest /= sizes[axis])
      at += rest % sizes[axis] * strides[axis];
    memcpy(values.data() + index * bytes, memory + at * bytes, bytes);
  }
  return values;
}

class ExecuTorch : public Network {
 public:
  ExecuTorch(const std::string& path, const std::string& label, int threads, bool profiled)
      : label_(label) {
    auto tracer = profiled ? std::make_unique<OperatorTracer>() : nullptr;
    tracer_ = tracer.get();
    module_ = load(path, label, threads, std::move(tracer));
    runtime = kRuntime;
    const auto meta = module_->method_meta("forward");
    if (!meta.ok()) throw rejected(label, meta.error());
    if (meta->num_inputs() != 1 || meta->num_outputs() == 0)
      throw wrong_count(label, meta->num_inputs(), meta->num_outputs());
    const auto input = meta->input_tensor_meta(0);
    if (!input.ok()) throw rejected(label, input.error());
    scalar_type_ = input->scalar_type();
    if (scalar_type_ == ScalarType::Byte)
      input_type = kUint8;
    else if (scalar_type_ != ScalarType::Float)
      throw wrong_input(label);
    if (input->sizes().size() < 2) throw wrong_input(label);
    sizes_.assign(input->sizes().begin(), input->sizes().end());
    batch_size = sizes_[0];
    input_shape.assign(sizes_.begin() + 1, sizes_.end());
    for (size_t index = 0; index < meta->num_outputs(); index++) {
      const auto output = meta->output_tensor_meta(index);
      if (!output.ok()) throw rejected(label, output.error());
      if (type_of(output->scalar_type()).empty())
        throw wrong_output(label, std::string("the type ") +
                                      executorch::runtime::toString(output->scalar_type()));
      if (output->sizes().empty() || output->sizes()[0] != batch_size)
        throw wrong_output(
            label, "the shape (" + joined({output->sizes().begin(), output->sizes().end()}) + ")");
    }
  }

  void run(const uint8_t* batch) override {
    const TensorPtr input =
        executorch::extension::from_blob(const_cast<uint8_t*>(batch), sizes_, scalar_type_);
    auto outputs = module_->forward(EValue(input));
    if (!outputs.ok()) throw failed(label_, outputs.error());
    outputs_ = std::move(*outputs);
  }

  std::vector<Array> outputs() const override {
    std::vector<Array> all;
    for (const EValue& output : outputs_) all.push_back(in_order(output.toTensor()));
    return all;
  }

  std::vector<OperatorTimes> end_profile() override { return std::move(tracer_->operators); }

 private:
  std::string label_;
  OperatorTracer* tracer_;  // the module's; null without a profile
  std::unique_ptr<Module> module_;
  std::vector<executorch::aten::SizesType> sizes_;
  ScalarType scalar_type_ = ScalarType::Float;
  std::vector<EValue> outputs_;  // of the last run
};

std::unique_ptr<Network> make_network(const std::string& path, const std::string& label, int threads,
                                      bool profiled) {
  return std::make_unique<ExecuTorch>(path, label, threads, profiled);
}

}  // namespace
}  // namespace runner

extern "C" __attribute__((visibility("default"))) const runner::ExecuTorchApi executorch_api = {
    EXECUTORCH_VERSION, runner::make_network};
