"""Layers are rounded one after the other, and biases absorb the shift of the mean."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.graph.fused_ops import weight_and_bias
from mobiledeploy.quantization import bias_correction
from mobiledeploy.quantization.bias_correction import round_with_bias_correction
from mobiledeploy.quantization.encodings import encode
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork, LayerWeights
from mobiledeploy.quantization.plan_builder import PlanBuilder
from mobiledeploy.quantization.ranges import narrow
from mobiledeploy.quantization.weight_rounding import round_to_nearest

IMAGES = networks.pixels(32)


def plan_of(range_factor=1.0, grid_factor=1.0):
    """Return a plan whose ranges and weight scales are multiplied by these factors."""
    builder = PlanBuilder.of(networks.folded("v2", short=True), networks.calibration(32))
    ranges = narrow(builder.widest, dict.fromkeys(builder.widest, range_factor), {})
    plan = builder.build(ranges)
    encodings = {
        node.name: encode(*ranges[shared.name])
        for shared in plan.shared_encodings
        for node in shared.nodes
    }
    scales = {
        op.name: grid_factor * weight_and_bias(plan.traced, op)[0].flatten(1).abs().amax(1) / 127
        for op in plan.layers
    }
    return replace(plan, encodings=encodings, scales=scales)


def keep_float(_node, weight, _scales, _inputs):
    return weight.clone()


def float_weights(plan):
    return {op.name: LayerWeights(*weight_and_bias(plan.traced, op)) for op in plan.layers}


def mean_shifts(plan, weights):
    """Return how far the mean output of every convolution is from the float network's, at most."""

    class Float(FakeQuantizedNetwork):
        def _quantize(self, _node, value):
            return value

    images = torch.from_numpy(IMAGES)
    with torch.no_grad():
        expected = Float(plan, float_weights(plan), keep=True).values(images)
        values = FakeQuantizedNetwork(plan, weights, keep=True).values(images)
    shifts = {}
    for op in plan.ops:
        if op.kind == "convolution" and op.output is not op.operator:  # not rounded yet
            shift = (values[op.operator] - expected[op.operator]).mean((0, 2, 3))
            shifts[op.name] = float(shift.abs().max())
    return shifts


def test_a_bias_compensates_for_the_mean_error_of_the_weights():
    plan = plan_of(grid_factor=16)
    rounded = round_with_bias_correction(plan, IMAGES, round_to_nearest)
    first = plan.layers[0]
    weight, bias = weight_and_bias(plan.traced, first)
    layer = rounded[first.name]
    assert not torch.equal(layer.weight, weight)
    convolve, settings = first.operator.target, first.operator.args[3:]
    encoding = plan.encodings[first.activations[0].name]
    clipped = torch.from_numpy(IMAGES).clamp(encoding.low, encoding.high)
    quantized = torch.fake_quantize_per_tensor_affine(
        clipped, encoding.scale, encoding.zero_point, quant_min=-128, quant_max=127
    )
    expected = convolve(clipped, weight, bias, *settings).mean((0, 2, 3))
    found = convolve(quantized, layer.weight, layer.bias, *settings).mean((0, 2, 3))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert float((layer.bias - bias).abs().max()) > 1e-3


def test_a_bias_compensates_for_the_mean_error_of_rounded_activations():
    plan = plan_of(range_factor=25.0)  # about ten steps from the darkest to the brightest pixel
    rounded = round_with_bias_correction(plan, IMAGES, keep_float)
    corrected, uncorrected = (mean_shifts(plan, w) for w in (rounded, float_weights(plan)))
    assert len(corrected) > 4
    assert sum(corrected.values()) < 1e-3 * sum(uncorrected.values())


def test_clipping_is_not_corrected():
    plan = plan_of(range_factor=0.3)
    rounded = round_with_bias_correction(plan, IMAGES, keep_float)
    shifts = mean_shifts(plan, float_weights(plan))
    assert len(shifts) > 4
    for op in plan.layers:
        if op.name in shifts:
            _, bias = weight_and_bias(plan.traced, op)
            correction = float((rounded[op.name].bias - bias).abs().max())
            assert correction < 0.1 * shifts[op.name]


def test_a_layer_alone_is_corrected_for_its_own_weights_only():
    plan = plan_of(range_factor=25.0)
    rounded = round_with_bias_correction(plan, IMAGES, keep_float, alone=True)
    for op in plan.layers:
        assert torch.equal(rounded[op.name].bias, weight_and_bias(plan.traced, op)[1])
    plan = plan_of(grid_factor=8)
    alone, together = (
        round_with_bias_correction(plan, IMAGES, round_to_nearest, alone=alone)
        for alone in (True, False)
    )
    first = plan.layers[0]
    assert not torch.equal(alone[first.name].bias, weight_and_bias(plan.traced, first)[1])
    torch.testing.assert_close(alone[first.name].bias, together[first.name].bias, atol=2e-3, rtol=0)


@pytest.mark.parametrize("alone", [False, True])
def test_biases_do_not_depend_on_how_images_are_batched(alone, monkeypatch):
    plan = plan_of(25.0, 8)
    expected = round_with_bias_correction(plan, IMAGES, round_to_nearest, alone=alone)
    slices = [slice(0, 3), slice(3, 4), slice(4, len(IMAGES))]
    monkeypatch.setattr(bias_correction, "batch_slices", lambda _: slices)
    found = round_with_bias_correction(plan, IMAGES, round_to_nearest, alone=alone)
    for name, layer in expected.items():
        torch.testing.assert_close(found[name].bias, layer.bias, atol=1e-5, rtol=1e-5)


def test_each_layer_is_rounded_on_inputs_from_the_rounded_layers_before_it():
    seen = {}

    def record(node, weight, scales, inputs):
        seen.setdefault(node.name, []).append(torch.cat(list(inputs)))
        return round_to_nearest(node, weight, scales, inputs)

    round_with_bias_correction(plan_of(), IMAGES, record)
    round_with_bias_correction(plan_of(grid_factor=32), IMAGES, record)
    changed = [not torch.equal(fine, coarse) for fine, coarse in seen.values()]
    assert changed[0] is False  # the image
    assert all(changed[1:])
    assert len(np.unique([len(x) for pair in seen.values() for x in pair])) == 1


def test_layers_with_smaller_inputs_are_given_more_images(monkeypatch):
    monkeypatch.setattr(bias_correction, "_LEAST_IMAGES", 8)
    monkeypatch.setattr(bias_correction, "_LARGEST_SIDE", 16)
    slices = [slice(first, first + 4) for first in range(0, 32, 4)]
    monkeypatch.setattr(bias_correction, "batch_slices", lambda _: slices)
    seen = {}

    def record(node, weight, scales, inputs):
        seen[node] = torch.cat(list(inputs))
        return round_to_nearest(node, weight, scales, inputs)

    images = networks.calibration(32, 32).images
    plan = plan_of(grid_factor=8)
    rounded = round_with_bias_correction(plan, images, record)
    order = bias_correction._evenly_spread_first(32, 8)
    assert order[:8] == list(range(0, 32, 4))
    assert sorted(order) == list(range(32))
    with torch.no_grad():
        network = FakeQuantizedNetwork(plan, rounded, keep=True)
        values = network.values(torch.from_numpy(images[order]))
    inputs = {op.operator: op.activations[0] for op in plan.layers}
    expected_counts = {32: 8, 16: 8, 8: 32, 4: 32, 1: 32}  # by side of the input
    assert {x.shape[-1] for x in seen.values() if x.dim() == 4} == {32, 16, 8, 4}
    for node, x in seen.items():
        assert len(x) == expected_counts[x.shape[-1] if x.dim() == 4 else 1]
        if x.dim() == 4 and x.shape[-1] < 32:  # its inputs come from rounded layers
            step = plan.encodings[inputs[node].name].scale
            differing = (x - values[inputs[node]][: len(x)]).abs() > step / 2
            assert float(differing.float().mean()) < 0.01  # codes near a rounding tie


def test_every_layer_is_computed_once_per_image(monkeypatch):
    computed_again = []
    for network in (FakeQuantizedNetwork, bias_correction._ClippedNetwork):
        monkeypatch.setattr(
            network,
            "_run_int8_op",
            lambda self, n: computed_again.append(n) or n.target(*self.operands(n)),
        )
    plan = plan_of()
    round_with_bias_correction(plan, IMAGES, round_to_nearest)
    assert computed_again
    assert not {op.operator for op in plan.layers} & set(computed_again)
