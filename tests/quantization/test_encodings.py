"""What holds for every encoding, weight and bias of the int8 network, whatever the recipe."""

import math
from dataclasses import replace

import networks
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from mobiledeploy.export.onnx_passes import int32_biases
from mobiledeploy.export.write import export_onnx
from mobiledeploy.models.spec import FAMILIES
from mobiledeploy.network import CalibrationSet, Encoding, Preprocessing, QuantRecipe
from mobiledeploy.quantization.encodings import encode, encode_input
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.quantization.weight_rounding import round_bias
from mobiledeploy.runtimes.open import open_runner

aten = torch.ops.aten
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def calls(model, target):
    return model.program.graph.find_nodes(op="call_function", target=target)


def encoding_of(node):
    """Return (scale, zero_point) of a quantize or dequantize node."""
    return float(node.args[1]), int(node.args[2])


def read_by(node):
    """Return the encoding in which an operator reads its first operand."""
    return encoding_of(node.args[0])


def written_by(node):
    """Return the encoding in which an operator's result is written."""
    (user,) = node.users
    return encoding_of(user)


@EVERY_FAMILY
def test_zero_is_an_integer_of_eight_bits_everywhere(family):
    for name, encoding in networks.quantized(family).encodings.items():
        assert -128 <= encoding.zero_point <= 127, name
        assert encoding.scale == float(np.float32(encoding.scale)) > 0, name


@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 2), (-3, -1), (-1, 1), (0, 6), (-1e-9, 0), (0, 0), (-7, 0.01)]
)
def test_an_encoding_spans_its_range_and_zero(low, high):
    encoding = encode(low, high)
    step = encoding.scale
    assert encoding.low <= min(low, 0) + step / 2 + 1e-12
    assert encoding.high >= max(high, 0) - step / 2 - 1e-6
    assert -128 <= encoding.zero_point <= 127


PREPROCESSINGS = [
    Preprocessing(),
    Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
]


@pytest.mark.parametrize("preprocessing", PREPROCESSINGS)
def test_every_pixel_value_is_clear_of_half_way_and_none_is_clipped(preprocessing):
    encoding = encode_input(preprocessing)
    pixels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    values = (pixels - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)
    assert values.size == 768
    steps = values.astype(np.float64) / encoding.scale
    assert np.abs(steps - np.floor(steps) - 0.5).min() > 5e-4
    codes = np.rint(steps) + encoding.zero_point
    assert codes.min() >= -128
    assert codes.max() <= 127
    assert np.ptp(codes) >= 249  # the widening costs no more than a few codes
    scale = np.float32(encoding.scale)
    divided, multiplied = np.rint(values / scale), np.rint(values * (np.float32(1) / scale))
    np.testing.assert_array_equal(divided, multiplied)


@pytest.mark.parametrize("family", ["v3-small", "v3-large"])
def test_what_enters_a_hardswish_starts_at_minus_three_exactly(family):
    nodes = calls(networks.quantized(family), aten.hardswish.default)
    assert len(nodes) > 10
    for node in nodes:
        scale, zero_point = read_by(node)
        steps = zero_point + 128
        assert steps >= 1
        assert np.float32(3 / steps) == np.float32(scale), node.name


@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
def test_no_mean_is_half_way_between_two_codes(family):
    nodes = calls(networks.quantized(family, 64), aten.adaptive_avg_pool2d.default)
    assert nodes
    for node in nodes:
        (source, _), (target, _) = read_by(node), written_by(node)
        count = math.prod(node.args[0].meta["val"].shape[-2:])
        means = np.arange(-255 * count, 255 * count + 1) * (source / (target * count))
        assert np.abs(means - np.floor(means) - 0.5).min() > 1e-5, node.name


@EVERY_FAMILY
def test_operands_and_result_of_an_addition_share_one_encoding(family):
    for node in calls(networks.quantized(family), aten.add.Tensor):
        one, other = (encoding_of(operand) for operand in node.args)
        assert one == other == written_by(node), node.name


@EVERY_FAMILY
def test_no_activation_is_left_outside_its_quantization(family):
    model = networks.quantized(family)
    for relu in (aten.relu.default, aten.relu_.default, aten.hardtanh_.default):
        assert not calls(model, relu)
    left = calls(model, aten.hardtanh.default)
    assert len(left) == (family == "v2")  # the stem's, in a residual stream at this width
    for clamp in left:
        (reader,) = clamp.users
        scale, zero_point = encoding_of(reader)
        assert not Encoding(scale=scale, zero_point=zero_point).enforces(clamp.args[1:])


@EVERY_FAMILY
@pytest.mark.parametrize("rule", ["searched", "minmax"])
def test_float_logits_of_the_calibration_images_are_never_clipped(family, rule):
    calibration = networks.calibration(32)
    model = networks.quantized(family)
    if rule == "minmax":
        recipe = replace(QuantRecipe(), range_rule=rule)
        model = quantize(networks.equalized(family), calibration, recipe)
    (output,) = model.program.graph.find_nodes(op="output")
    scale, zero_point = encoding_of(output.args[0][0])
    with torch.no_grad():
        exact = networks.equalized(family).module(torch.from_numpy(calibration.images)).numpy()
    assert (-128 - zero_point) * scale <= exact.min()
    assert (127 - zero_point) * scale >= exact.max()


def weighted(model):
    """Yield (name, weight codes, bias codes before rounding) of every weighted operator."""
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
            grid = (np.float32(read_by(node)[0]) * scales.float().numpy()).astype(np.float64)
            yield node.name, weight.numpy(), state[names[bias.name]].detach().numpy() / grid


@EVERY_FAMILY
def test_weights_are_symmetric_int8_and_biases_lie_on_their_int32_grid(family):
    found = list(weighted(networks.quantized(family)))
    assert len(found) > 10
    for name, weight, bias in found:
        assert weight.dtype == np.int8
        assert weight.min() >= -127, name
        # float32 holds 24 bits of the real number that stands for the integer
        assert (np.abs(bias - np.rint(bias)) <= 1e-6 * np.maximum(np.abs(bias), 1)).all(), name
        assert np.abs(bias).max() <= 2**21, name
    assert max(np.abs(bias).max() for *_, bias in found) > 100


def with_a_dead_channel(weight_size):
    """Return V2 with channel 0 of its stem cut off from the image, as folding may leave it."""
    import copy

    model = networks.folded("v2", short=True)
    module = copy.deepcopy(model.module)
    stem = next(layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d))
    with torch.no_grad():
        stem.weight[0].mul_(weight_size / stem.weight[0].abs().max())
        stem.bias[0] = 2.0
    return replace(model, module=module)


@pytest.mark.parametrize("weight_size", [1e-6, 1e-12, 0.0])
def test_a_dead_channel_overflows_no_bias_and_keeps_parity(weight_size, tmp_path):
    model = quantize(with_a_dead_channel(weight_size), networks.calibration(32))
    biases = {name: bias for name, _, bias in weighted(model)}
    assert max(np.abs(bias).max() for bias in biases.values()) <= 2**21
    artifact = export_onnx(model, tmp_path / "dead.onnx")
    stored = [
        numpy_helper.to_array(tensor)
        for tensor in onnx.load(artifact.path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT32
    ]
    assert len(stored) == len(biases)
    assert max(int(np.abs(bias.astype(np.int64)).max()) for bias in stored) <= 2**21
    images = networks.pixels(32, seed=1)
    expected = IntegerReference(model).run({"input": images})["logits"]
    with open_runner(artifact.path) as runner:
        assert np.count_nonzero(runner.run({"input": images})["logits"] != expected) == 0
    # the channel still says 2: the float network and the int8 one see the same picture
    with torch.no_grad():
        exact = with_a_dead_channel(weight_size).module(torch.from_numpy(images)).numpy()
    assert np.corrcoef(exact.ravel(), expected.ravel())[0, 1] > 0.95


def test_a_bias_beyond_its_grid_is_the_largest_that_float32_and_int32_hold():
    scales, corrected = torch.tensor([2.0**-40, 0.5]), torch.tensor([-3.0, 3.0])
    assert round_bias(corrected, scales, 0.25).tolist() == [-(2.0**22) * 2.0**-42, 3.0]


def test_no_bias_is_so_large_that_float32_forgets_its_integer():
    """Beyond 2**22 steps it is off by more than the exporter takes for float32's rounding."""
    random = np.random.default_rng(0)
    scales = torch.from_numpy(random.uniform(1e-9, 2e-9, 10_000).astype(np.float32))
    corrected = torch.from_numpy(random.uniform(-7e-4, 7e-4, 10_000).astype(np.float32))
    bias, grid = round_bias(corrected, scales, 0.03), np.float32(0.03) * scales.numpy()
    steps = bias.numpy().astype(np.float64) / grid.astype(np.float64)
    assert np.abs(steps - np.rint(steps)).max() < int32_biases._OFF_GRID


def test_the_same_inputs_give_the_same_network():
    again = quantize(networks.equalized("v2", short=True), networks.calibration(32))
    assert again.encodings_digest == networks.quantized("v2", short=True).encodings_digest


def test_the_digest_sees_a_change_of_one_weight_and_of_the_images():
    base = networks.quantized("v2", short=True).encodings_digest
    other = networks.equalized("v2", short=True)
    images = networks.pixels(32, seed=3)
    changed = CalibrationSet(images=images, source="other", sha256="1")
    assert quantize(other, changed).encodings_digest != base
    assert networks.quantized("v2").encodings_digest != base


@EVERY_FAMILY
def test_the_int8_network_is_close_to_the_float_one(family):
    images = networks.pixels(32, seed=1)
    with torch.no_grad():
        exact = networks.folded(family).module(torch.from_numpy(images)).numpy()
    found = IntegerReference(networks.quantized(family)).run({"input": images})["logits"]
    assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.9
