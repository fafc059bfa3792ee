"""Invariants of every int8 network: encodings, weights and biases, whatever the recipe."""

import copy
import math
from dataclasses import replace

import networks
import numpy as np
import onnx
import pytest
import torch
from networks import FAMILIES
from onnx import numpy_helper

from mobiledeploy.errors import UsageError
from mobiledeploy.export.write import export_onnx
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import CalibrationSet, Encoding, QuantRecipe

aten = torch.ops.aten
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def calls(model, target):
    return model.program.graph.find_nodes(op="call_function", target=target)


def encoding_of(node):
    """Return (scale, zero_point) of a quantize or dequantize node."""
    return float(node.args[1]), int(node.args[2])


def input_encoding(node):
    """Return the encoding of an operator's first operand."""
    return encoding_of(node.args[0])


def output_encoding(node):
    """Return the encoding of an operator's result."""
    (user,) = node.users
    return encoding_of(user)


@pytest.mark.ci
@EVERY_FAMILY
def test_zero_points_are_int8_and_scales_are_float32(family):
    for name, encoding in networks.quantized(family).encodings.items():
        assert -128 <= encoding.zero_point <= 127, name
        assert encoding.scale == float(np.float32(encoding.scale)) > 0, name


@pytest.mark.ci
@pytest.mark.parametrize("family", ["v3-small", "v3-large"])
def test_the_input_of_a_hardswish_starts_at_minus_three_exactly(family):
    nodes = calls(networks.quantized(family), aten.hardswish.default)
    assert len(nodes) > 10
    for node in nodes:
        scale, zero_point = input_encoding(node)
        steps = zero_point + 128
        assert steps >= 1
        assert np.float32(3 / steps) == np.float32(scale), node.name


@pytest.mark.ci
@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
def test_no_mean_of_a_pool_is_a_rounding_tie(family):
    nodes = calls(networks.quantized(family, 64), aten.adaptive_avg_pool2d.default)
    assert nodes
    for node in nodes:
        (source, _), (target, _) = input_encoding(node), output_encoding(node)
        count = math.prod(node.args[0].meta["val"].shape[-2:])
        means = np.arange(-255 * count, 255 * count + 1) * (source / (target * count))
        assert np.abs(means - np.floor(means) - 0.5).min() > 1e-5, node.name


@pytest.mark.ci
@EVERY_FAMILY
def test_operands_and_result_of_an_addition_share_one_encoding(family):
    for node in calls(networks.quantized(family), aten.add.Tensor):
        one, other = (encoding_of(operand) for operand in node.args)
        assert one == other == output_encoding(node), node.name


@pytest.mark.ci
@EVERY_FAMILY
def test_the_only_activations_left_are_clamps_that_saturation_does_not_perform(family):
    model = networks.quantized(family)
    for relu in (aten.relu.default, aten.relu_.default, aten.hardtanh_.default):
        assert not calls(model, relu)
    left = calls(model, aten.hardtanh.default)
    assert len(left) == (family == "v2")  # the stem's, in a residual stream at this width
    for clamp in left:
        (reader,) = clamp.users
        scale, zero_point = encoding_of(reader)
        assert not Encoding(scale=scale, zero_point=zero_point).enforces(clamp.args[1:])


@pytest.mark.ci
@EVERY_FAMILY
@pytest.mark.parametrize("rule", ["searched", "minmax"])
def test_float_logits_of_the_calibration_images_are_never_clipped(family, rule):
    calibration = networks.calibration(32)
    model = networks.quantized(family)
    if rule == "minmax":
        recipe = QuantRecipe(equalization="cross-layer", range_rule=rule)
        model = quantize(networks.equalized(family), calibration, recipe)
    (output,) = model.program.graph.find_nodes(op="output")
    scale, zero_point = encoding_of(output.args[0][0])
    with torch.no_grad():
        exact = networks.equalized(family).module(torch.from_numpy(calibration.images)).numpy()
    assert (-128 - zero_point) * scale <= exact.min()
    assert (127 - zero_point) * scale >= exact.max()


def weighted(model):
    """Yield (name, int8 weight, bias / grid before rounding) of every operator with weights."""
    state = model.program.state_dict | dict(model.program.constants)
    signature = model.program.graph_signature
    names = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    for target in (aten.conv2d.default, aten.linear.default):
        for node in calls(model, target):
            _, dequantized, bias = node.args[:3]
            weight, scales = (state[names[arg.name]] for arg in dequantized.args[:2])
            input_scale, _ = input_encoding(node)
            grid = (np.float32(input_scale) * scales.float().numpy()).astype(np.float64)
            yield node.name, weight.numpy(), state[names[bias.name]].detach().numpy() / grid


@EVERY_FAMILY
def test_weights_are_symmetric_int8_and_biases_lie_on_their_int32_grid(family):
    found = list(weighted(networks.quantized(family)))
    assert len(found) > 10
    for name, weight, bias in found:
        assert weight.dtype == np.int8
        assert weight.min() >= -127, name
        # a float32 holds 24 bits of the real number that stands for the integer
        assert (np.abs(bias - np.rint(bias)) <= 1e-6 * np.maximum(np.abs(bias), 1)).all(), name
        assert np.abs(bias).max() <= 2**21, name
    assert max(np.abs(bias).max() for *_, bias in found) > 100


def with_a_dead_channel(weight_size):
    """Return V2 with channel 0 of its stem cut off from the image, as folding may leave it."""
    model = networks.folded("v2", short=True)
    module = copy.deepcopy(model.module)
    stem = next(layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d))
    with torch.no_grad():
        stem.weight[0].mul_(weight_size / stem.weight[0].abs().max())
        stem.bias[0] = 2.0
    return replace(model, module=module)


@pytest.mark.ci
@pytest.mark.parametrize("weight_size", [1e-6, 1e-12, 0.0])
def test_a_dead_channel_overflows_no_bias_and_stays_exact(weight_size, tmp_path):
    model = quantize(with_a_dead_channel(weight_size), networks.calibration(32))
    biases = {name: bias for name, _, bias in weighted(model)}
    assert max(np.abs(bias).max() for bias in biases.values()) <= 2**21
    artifact = export_onnx(model, tmp_path / "dead.onnx")
    stored = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(artifact.path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT32
        and not tensor.name.startswith("bias_zero_points")
    ]
    assert len(stored) == len(biases)
    assert max(int(np.abs(bias.astype(np.int64)).max()) for bias in stored) <= 2**21
    images = networks.pixels(32, seed=1)
    expected = IntegerReference(model).run({"input": images})["logits"]
    with open_runner(artifact.path) as runner:
        assert np.count_nonzero(runner.run({"input": images})["logits"] != expected) == 0
    # the channel still holds 2, so the logits follow the float network's
    with torch.no_grad():
        exact = with_a_dead_channel(weight_size).module(torch.from_numpy(images)).numpy()
    assert np.corrcoef(exact.ravel(), expected.ravel())[0, 1] > 0.95


def test_the_same_inputs_give_the_same_network():
    again = quantize(networks.equalized("v2", short=True), networks.calibration(32))
    assert again.encodings_digest == networks.quantized("v2", short=True).encodings_digest


def test_the_digest_changes_with_the_weights_and_with_the_images():
    base = networks.quantized("v2", short=True).encodings_digest
    images = networks.pixels(32, seed=3)
    other_images = CalibrationSet(images=images, source="other", sha256="1")
    model = networks.equalized("v2", short=True)
    assert quantize(model, other_images).encodings_digest != base
    assert networks.quantized("v2").encodings_digest != base


@EVERY_FAMILY
def test_the_int8_network_is_close_to_the_float_one(family):
    images = networks.pixels(32, seed=1)
    with torch.no_grad():
        exact = networks.folded(family).module(torch.from_numpy(images)).numpy()
    found = IntegerReference(networks.quantized(family)).run({"input": images})["logits"]
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.9


def test_the_default_recipe_takes_the_equalization_of_the_model():
    images = networks.calibration(32)
    equalized = networks.equalized("v1", short=True)
    for model, expected in (
        (networks.folded("v1", short=True), "none"),
        (equalized, "cross-layer"),
        (learn_equalization(equalized, images), "learned"),
    ):
        assert quantize(model, images).recipe.equalization == expected


def test_a_recipe_with_another_equalization_than_the_model_is_refused():
    with pytest.raises(
        UsageError, match="equalization 'learned'; the model has 'cross-layer'"
    ) as e:
        quantize(networks.equalized("v1", short=True), networks.calibration(32), QuantRecipe())
    assert "equalization='cross-layer'" in e.value.remedy
