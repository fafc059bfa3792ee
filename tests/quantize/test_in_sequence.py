"""Layers are rounded one after the other; biases make good for what rounding shifted."""

import networks
import numpy as np
import torch

from mobiledeploy.graph import find_sites, find_units, trace, weight_and_bias
from mobiledeploy.observe import observe
from mobiledeploy.quantize.in_sequence import round_in_sequence
from mobiledeploy.quantize.ranges import encode, narrowed, widest_ranges
from mobiledeploy.quantize.weights import round_to_nearest

IMAGES = networks.pixels(32)


def sequence(factor=1.0, rounding=round_to_nearest, coarse=1.0):
    """Round a network whose ranges are narrowed by a factor, on weight grids this coarse."""
    traced = trace(networks.folded("v2", short=True))
    units = find_units(traced)
    sites = find_sites(traced, units)
    observed = observe(traced, [n for s in sites for n in s.nodes], networks.calibration(32))
    ranges = narrowed(widest_ranges(sites, observed), {s.name: factor for s in sites}, {})
    encodings = {node.name: encode(*ranges[s.name]) for s in sites for node in s.nodes}
    scales = {}
    for unit in units:
        if unit.has_weight:
            weight, _ = weight_and_bias(traced, unit)
            scales[unit.operator.name] = coarse * weight.flatten(1).abs().amax(1) / 127
    return traced, units, round_in_sequence(traced, units, encodings, scales, IMAGES, rounding)


def keep(_node, weight, _scales, _inputs):
    return weight.clone()


def test_a_bias_makes_good_for_the_mean_that_rounding_moved():
    traced, units, rounded = sequence(coarse=16)
    first = next(unit for unit in units if unit.has_weight)
    weight, bias = weight_and_bias(traced, first)
    done = rounded[first.operator.name]
    assert not torch.equal(done.weight, weight)
    settings = first.operator.args[3:]
    convolve = first.operator.target
    x = torch.from_numpy(IMAGES)
    x = torch.fake_quantize_per_tensor_affine(
        x, *_input_encoding(traced), quant_min=-128, quant_max=127
    )
    before = convolve(x, weight, bias, *settings).mean((0, 2, 3))
    after = convolve(x, done.weight, done.bias, *settings).mean((0, 2, 3))
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    assert float((done.bias - bias).abs().max()) > 1e-3


def _input_encoding(traced):
    (source,) = traced.graph.find_nodes(op="placeholder")
    observed = observe(traced, [source], networks.calibration(32))[source.name]
    encoding = encode(float(observed.minima.min()), float(observed.maxima.max()))
    return encoding.scale, encoding.zero_point


def test_what_a_narrow_range_clips_is_not_put_into_the_biases():
    traced, units, rounded = sequence(factor=0.3, rounding=keep)
    for unit in units:
        if unit.has_weight:
            _, bias = weight_and_bias(traced, unit)
            assert torch.equal(rounded[unit.operator.name].bias, bias)


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
