// A .pte file in ExecuTorch. This file becomes `executorch.so`, which needs ExecuTorch's libraries.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/runtime.h>

#include <cstring>
#include <random>

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

using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Program;

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

std::unique_ptr<Module> load(const std::string& path, const std::string& label, int threads) {
  executorch::runtime::runtime_init();
  auto* pool = executorch::extension::threadpool::get_threadpool();
  if (pool->get_thread_count() != static_cast<size_t>(threads))
    pool->_unsafe_reset_threadpool(threads);
  auto module = std::make_unique<Module>(path, Module::LoadMode::Mmap);
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
  ExecuTorch(const std::string& path, const std::string& label, int threads)
      : label_(label), module_(load(path, label, threads)) {
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

 private:
  std::string label_;
  std::unique_ptr<Module> module_;
  std::vector<executorch::aten::SizesType> sizes_;
  ScalarType scalar_type_ = ScalarType::Float;
  std::vector<EValue> outputs_;  // of the last run
};

// Integers over the whole range of their type, or normally distributed floats.
std::vector<uint8_t> noise(const OperatorInput& input, size_t bytes_per_value) {
  std::mt19937 random(0);
  std::vector<uint8_t> data((product(input.shape) + kPadding) * bytes_per_value);
  if (input.datatype == "float32") {
    std::normal_distribution<float> normal;
    auto* values = reinterpret_cast<float*>(data.data());
    for (size_t i = 0; i < data.size() / 4; i++) values[i] = normal(random);
  } else {
    for (uint8_t& byte : data) byte = static_cast<uint8_t>(random());
  }
  return data;
}

class Operator : public OperatorProgram {
 public:
  Operator(const std::string& path, const std::string& label, int threads,
           const std::vector<OperatorInput>& inputs)
      : label_(label), module_(load(path, label, threads)) {
    static const struct {
      const char* name;
      ScalarType type;
      size_t bytes;
    } types[] = {{"float32", ScalarType::Float, 4},
                 {"int32", ScalarType::Int, 4},
                 {"int8", ScalarType::Char, 1},
                 {"uint8", ScalarType::Byte, 1}};
    for (const OperatorInput& input : inputs)
      for (const auto& type : types) {
        if (input.datatype != type.name) continue;
        data_.push_back(noise(input, type.bytes));
        tensors_.push_back(executorch::extension::from_blob(
            data_.back().data(), {input.shape.begin(), input.shape.end()}, type.type));
        values_.emplace_back(tensors_.back());
      }
    if (values_.size() != inputs.size())
      throw Failure{"RuntimeFailedError", label + " has an input of an unknown datatype.",
                    "Use the versions of mobiledeploy and of its runner that belong together."};
  }

  void run() override {
    const auto outputs = module_->forward(values_);
    if (!outputs.ok()) throw failed(label_, outputs.error());
  }

 private:
  std::string label_;
  std::unique_ptr<Module> module_;
  std::vector<std::vector<uint8_t>> data_;
  std::vector<TensorPtr> tensors_;
  std::vector<EValue> values_;
};

std::unique_ptr<Network> make_network(const std::string& path, const std::string& label, int threads) {
  return std::make_unique<ExecuTorch>(path, label, threads);
}

std::unique_ptr<OperatorProgram> make_operator(const std::string& path, const std::string& label,
                                               int threads,
                                               const std::vector<OperatorInput>& inputs) {
  return std::make_unique<Operator>(path, label, threads, inputs);
}

}  // namespace
}  // namespace runner

extern "C" __attribute__((visibility("default"))) const runner::ExecuTorchApi executorch_api = {
    EXECUTORCH_VERSION, runner::make_network, runner::make_operator};
