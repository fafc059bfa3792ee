"""Faults to plant in an `.onnx`: each changes the file's constants in one place."""

import numpy as np
import onnx
from onnx import numpy_helper


def plant(path, target, change):
    """Write a copy of the model at `path` to `target`, changed by `change(model)`; return it."""
    model = onnx.load(path)
    change(model)
    onnx.save(model, target)
    return target


def weights(model, index):
    """Return the initializer that holds the weight of the convolution number `index`."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    return tensors[producers[convolutions[index].input[1]].input[0]]


def edit(tensor, change):
    """Replace a tensor's values by `change(values)`."""
    values = change(numpy_helper.to_array(tensor).copy())
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def perturbed_weight(index, count=1):
    """Return a fault: the first `count` int8 weights of a convolution (None: all), off by one."""

    def change(values):
        flat = values.reshape(-1)
        flat[:count] += np.where(flat[:count] > 0, -1, 1).astype(np.int8)
        return values

    return lambda model: edit(weights(model, index), change)


def off_by_one(weights):
    """Return int8 weights, as bytes, each one code nearer to zero, or further away from it."""
    values = np.frombuffer(weights, np.int8).copy()
    values += np.where(values > 0, -1, 1).astype(np.int8)
    return values.tobytes()


def shifted_zero_point(index):
    """Return a fault: the zero-point of the quantizer number `index`, off by one."""

    def change(model):
        quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        node = quantizers[index]
        known = next(t for t in model.graph.initializer if t.name == node.input[2])
        value = numpy_helper.to_array(known)
        shifted = value + 1 if value < 255 else value - 1
        name = f"{node.name}.shifted"
        model.graph.initializer.append(numpy_helper.from_array(shifted.astype(np.uint8), name))
        node.input[2] = name

    return change


def swapped_channels(index):
    """Return a fault: two output channels of a convolution change places."""
    return lambda model: edit(weights(model, index), lambda v: v[[1, 0, *range(2, len(v))]])


def takes_bgr(model):
    """Reverse the three colours that the first convolution reads, each with all of its rows."""
    edit(weights(model, 0), lambda v: v.reshape(len(v), 3, -1)[:, ::-1].reshape(v.shape))


def not_a_number(model):
    """Make the scale of the logits NaN."""
    (output,) = [value.name for value in model.graph.output]
    node = next(node for node in model.graph.node if output in node.output)
    nan = numpy_helper.from_array(np.array(np.nan, np.float32), "nan")
    model.graph.initializer.append(nan)
    node.input[1] = nan.name
