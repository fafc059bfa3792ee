"""Layers are rounded one after the other; biases make good for what rounding shifted."""

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.graph.aten_graph import (
    find_fused_ops,
    find_shared_encodings,
    trace,
    weight_and_bias,
)
from mobiledeploy.graph.observers import observe
from mobiledeploy.quantization import bias_correction as in_sequence
from mobiledeploy.quantization.bias_correction import round_with_bias_correction
from mobiledeploy.quantization.encodings import encode, narrowed, widest_ranges
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork, Rounded
from mobiledeploy.quantization.weight_rounding import round_to_nearest

IMAGES = networks.pixels(32)


def sequence(rounding=round_to_nearest, coarse=1.0):
    """Round a network on weight grids this coarse."""
    traced, ops, _, rounded = whole_sequence(1.0, rounding, coarse)
    return traced, ops, rounded


def whole_sequence(factor, rounding, coarse=1.0, *, alone=False, images=IMAGES):
    """Round a network whose ranges are multiplied by a factor; return its encodings as well."""
    traced = trace(networks.folded("v2", short=True))
    ops = find_fused_ops(traced)
    shared_encodings = find_shared_encodings(traced, ops)
    observed = observe(
        traced, [n for s in shared_encodings for n in s.nodes], networks.calibration(32)
    )
    ranges = narrowed(
        widest_ranges(shared_encodings, observed), {s.name: factor for s in shared_encodings}, {}
    )
    encodings = {node.name: encode(*ranges[s.name]) for s in shared_encodings for node in s.nodes}
    scales = {}
    for op in ops:
        if op.has_weight:
            weight, _ = weight_and_bias(traced, op)
            scales[op.operator.name] = coarse * weight.flatten(1).abs().amax(1) / 127
    rounded = round_with_bias_correction(
        traced, ops, encodings, scales, images, rounding, alone=alone
    )
    return traced, ops, encodings, rounded


def keep(_node, weight, _scales, _inputs):
    return weight.clone()


def test_a_bias_makes_good_for_the_mean_that_rounding_moved():
    traced, ops, rounded = sequence(coarse=16)
    first = next(op for op in ops if op.has_weight)
    weight, bias = weight_and_bias(traced, first)
    done = rounded[first.operator.name]
    assert not torch.equal(done.weight, weight)
    settings = first.operator.args[3:]
    convolve = first.operator.target
    encoding = _input_encoding(traced)
    x = torch.from_numpy(IMAGES).clamp(encoding.low, encoding.high)
    coded = torch.fake_quantize_per_tensor_affine(
        x, encoding.scale, encoding.zero_point, quant_min=-128, quant_max=127
    )
    before = convolve(x, weight, bias, *settings).mean((0, 2, 3))
    after = convolve(coded, done.weight, done.bias, *settings).mean((0, 2, 3))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert float((done.bias - bias).abs().max()) > 1e-3


def _input_encoding(traced):
    (source,) = traced.graph.find_nodes(op="placeholder")
    observed = observe(traced, [source], networks.calibration(32))[source.name]
    return encode(float(observed.minima.min()), float(observed.maxima.max()))


def shifts(traced, ops, encodings, rounded):
    """Return how far the mean output of every layer is from the float network's, at most."""

    class Float(FakeQuantizedNetwork):
        def _coded(self, _node, value):
            return value

    images = torch.from_numpy(IMAGES)
    with torch.no_grad():
        wanted = Float(traced, ops, encodings, unrounded(traced, ops), keep=True).values(images)
        values = FakeQuantizedNetwork(traced, ops, encodings, rounded, keep=True).values(images)
    found = {}
    for op in ops:
        if op.kind == "convolution" and op.output is not op.operator:  # not yet rounded
            moved = (values[op.operator] - wanted[op.operator]).mean((0, 2, 3))
            found[op.operator.name] = float(moved.abs().max())
    return found


def unrounded(traced, ops):
    return {u.operator.name: Rounded(*weight_and_bias(traced, u)) for u in ops if u.has_weight}


def test_what_rounding_activations_does_to_the_mean_is_put_into_the_biases():
    # ten steps or so from the darkest pixel to the brightest
    traced, ops, encodings, rounded = whole_sequence(factor=25.0, rounding=keep)
    left = shifts(traced, ops, encodings, rounded)
    uncorrected = shifts(traced, ops, encodings, unrounded(traced, ops))
    assert len(left) > 4
    assert sum(left.values()) < 1e-3 * sum(uncorrected.values())


def test_what_a_narrow_range_clips_is_not_put_into_the_biases():
    traced, ops, encodings, rounded = whole_sequence(factor=0.3, rounding=keep)
    clipped = shifts(traced, ops, encodings, unrounded(traced, ops))
    assert len(clipped) > 4
    for op in ops:
        if op.operator.name in clipped:
            _, bias = weight_and_bias(traced, op)
            moved = float((rounded[op.operator.name].bias - bias).abs().max())
            assert moved < 0.1 * clipped[op.operator.name]


def test_a_layer_alone_makes_good_for_its_own_weights_only():
    traced, ops, _, rounded = whole_sequence(factor=25.0, rounding=keep, alone=True)
    for op in ops:
        if op.has_weight:
            assert torch.equal(rounded[op.operator.name].bias, weight_and_bias(traced, op)[1])
    _, ops, _, rounded = whole_sequence(factor=1.0, rounding=round_to_nearest, coarse=8, alone=True)
    first = next(op for op in ops if op.has_weight)
    together = whole_sequence(factor=1.0, rounding=round_to_nearest, coarse=8)[-1]
    assert not torch.equal(rounded[first.operator.name].bias, weight_and_bias(traced, first)[1])
    torch.testing.assert_close(
        rounded[first.operator.name].bias, together[first.operator.name].bias, atol=2e-3, rtol=0
    )


@pytest.mark.parametrize("alone", [False, True])
def test_images_in_parts_make_the_same_biases(alone, monkeypatch):
    whole = whole_sequence(25.0, round_to_nearest, 8, alone=alone)[-1]
    cut = [slice(0, 3), slice(3, 4), slice(4, len(IMAGES))]
    monkeypatch.setattr(in_sequence, "batch_slices", lambda _: cut)
    in_parts = whole_sequence(25.0, round_to_nearest, 8, alone=alone)[-1]
    for name, one in whole.items():
        torch.testing.assert_close(in_parts[name].bias, one.bias, atol=1e-5, rtol=1e-5)


def test_each_layer_sees_what_the_layers_before_it_have_become():
    seen = {}

    def watch(node, weight, scales, inputs):
        seen.setdefault(node.name, []).append(torch.cat(list(inputs)))
        return round_to_nearest(node, weight, scales, inputs)

    sequence(rounding=watch)
    sequence(rounding=watch, coarse=32)
    changed = [not torch.equal(fine, coarse) for fine, coarse in seen.values()]
    assert changed[0] is False  # the image
    assert all(changed[1:])
    assert len(np.unique([len(x) for pair in seen.values() for x in pair])) == 1


def test_later_layers_are_shown_more_images(monkeypatch):
    monkeypatch.setattr(in_sequence, "_FIRST_SHOWN", 8)
    monkeypatch.setattr(in_sequence, "_FIRST_SIDE", 16)
    cut = [slice(first, first + 4) for first in range(0, 32, 4)]
    monkeypatch.setattr(in_sequence, "batch_slices", lambda _: cut)
    seen = {}

    def watch(node, weight, scales, inputs):
        seen[node] = torch.cat(list(inputs))
        return round_to_nearest(node, weight, scales, inputs)

    images = networks.calibration(32, 32).images
    traced, ops, encodings, rounded = whole_sequence(1.0, watch, coarse=8, images=images)
    order = in_sequence._spread_first(32, 8)
    assert order[:8] == list(range(0, 32, 4))
    assert sorted(order) == list(range(32))
    with torch.no_grad():
        network = FakeQuantizedNetwork(traced, ops, encodings, rounded, keep=True)
        values = network.values(torch.from_numpy(images[order]))
    read = {op.operator: op.activations[0] for op in ops if op.has_weight}
    wanted = {32: 8, 16: 8, 8: 32, 4: 32, 1: 32}  # by the side of what is read
    assert {x.shape[-1] for x in seen.values() if x.dim() == 4} == {32, 16, 8, 4}
    for node, x in seen.items():
        assert len(x) == wanted[x.shape[-1] if x.dim() == 4 else 1]
        if x.dim() == 4 and x.shape[-1] < 32:  # all has been rounded by then
            step = encodings[read[node].name].scale
            differing = (x - values[read[node]][: len(x)]).abs() > step / 2
            assert float(differing.float().mean()) < 0.01  # codes next to half-way


def test_every_layer_is_computed_once_for_an_image(monkeypatch):
    computed = []
    for run in (FakeQuantizedNetwork, in_sequence._Clipped):
        monkeypatch.setattr(
            run, "_integer_unit", lambda self, n: computed.append(n) or n.target(*self.operands(n))
        )
    _, ops, _ = sequence()
    assert not {op.operator for op in ops if op.has_weight} & set(computed)
