"""Cross-layer equalization: other weights, channels of similar range, the same function."""

import copy
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from networks import FAMILIES

from mobiledeploy.errors import DataError
from mobiledeploy.graph import observers
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.channel_groups import find_groups
from mobiledeploy.graph.fused_ops import find_fused_ops, weight_and_bias
from mobiledeploy.graph.observers import observe
from mobiledeploy.graph.shared_encodings import find_shared_encodings
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.stages import QuantRecipe

FIRST = "features.1.block.0.0"
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


@EVERY_FAMILY
def test_the_outputs_on_the_calibration_images_stay_the_same(family):
    before, after = networks.folded(family), networks.equalized(family)
    networks.assert_same_outputs(before, after, networks.pixels(32))


def test_all_filters_of_one_channel_take_its_scale():
    options = {"kernels_per_layer": 2, "activation": "relu"}
    images = networks.pixels(32)
    before = networks.folded("v1", short=True, **options)
    after = networks.equalized("v1", short=True, **options)
    networks.assert_same_outputs(before, after, images)
    assert not np.array_equal(networks.outputs(before, images), networks.outputs(after, images))


def weights(model):
    """Return all convolution and linear weights in the order they run."""
    return [p.detach() for p in trace(model).parameters() if p.dim() > 1]


@EVERY_FAMILY
def test_the_weights_change(family):
    before, after = weights(networks.folded(family)), weights(networks.equalized(family))
    assert [w.shape for w in before] == [w.shape for w in after]
    assert any(not torch.allclose(b, a, rtol=0.01) for b, a in zip(before, after, strict=True))


def test_the_model_is_not_modified():
    model = networks.folded("v2", short=True)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    equalize(model, networks.calibration(32))
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def imbalance(model):
    """Return the largest channel over the geometric mean channel, for every residual stream."""
    traced = trace(model)
    adds = [op.output for op in find_fused_ops(traced) if op.kind == "add"]
    stats = observe(traced, adds, networks.calibration(32)).values()
    largest = [np.maximum(s.maxima.max(0), -s.minima.min(0)) for s in stats]
    return np.array([m.max() / np.exp(np.log(m).mean()) for m in largest])


def test_the_channels_of_residual_streams_become_more_similar():
    before, after = imbalance(networks.folded("v2")), imbalance(networks.equalized("v2"))
    # the first stream begins at the stem's ReLU6 and keeps its scale
    assert (after <= before).all()
    assert after.mean() - 1 < 0.7 * (before.mean() - 1)


def test_dead_channels_keep_their_scale_and_do_not_affect_the_others():
    model = networks.folded("v3-small", short=True)
    module = copy.deepcopy(model.module)
    depthwise = module.get_submodule(FIRST)
    dead = np.arange(len(depthwise.weight)) % 2 == 0
    with torch.no_grad():
        depthwise.weight[dead] = 0
        depthwise.bias[dead] = -1
    silenced = replace(model, module=module)

    def maxima(network):
        traced = trace(network)
        (op,) = (op for op in find_fused_ops(traced) if op.layer.startswith(FIRST))
        (stats,) = observe(traced, [op.output], networks.calibration(32)).values()
        return stats.maxima.max(0)

    before, after = maxima(silenced), maxima(equalize(silenced, networks.calibration(32)))
    assert (after[dead] == 0).all()
    assert np.ptp(np.log(after[~dead])) < 0.8 * np.ptp(np.log(before[~dead]))


@pytest.mark.parametrize(("count", "margin"), [(4, 2.5), (9, 2.0)])
def test_channels_below_a_relu6_are_scaled_up_with_a_margin_for_unseen_images(count, margin):
    model, images = networks.folded("v2", short=True), networks.calibration(32, count)
    before = maxima_below_relu6(model, images)
    after = maxima_below_relu6(equalize(model, images), images)
    room = np.minimum(6 / margin, 64 * before)  # nearly dead channels are scaled by 64 at most
    assert (before < 0.9 * room).any()
    np.testing.assert_allclose(after, np.maximum(before, room), rtol=1e-4)


def maxima_below_relu6(model, images):
    """Return the maxima of the channels of every ReLU6 before a depthwise convolution."""
    traced = trace(model)
    groups = [g for g in find_groups(traced, find_fused_ops(traced)) if g.ceiling == 6]
    nodes = [g.nodes[0] for g in groups if weight_and_bias(traced, g.consumers[0])[0].shape[1] == 1]
    return np.concatenate([o.maxima.max(0) for o in observe(traced, nodes, images).values()])


def test_an_empty_calibration_set_is_refused():
    with pytest.raises(DataError, match="calibration set is empty"):
        equalize(networks.folded("v2", short=True), networks.calibration(32, 0))


def test_channels_of_a_residual_stream_are_flipped_to_one_side():
    """The common range becomes half as wide."""
    before, after = reaches_up(networks.folded("v2")), reaches_up(networks.equalized("v2"))
    assert 0.2 < np.mean(before) < 0.8
    assert np.mean(after) == 1


class AddedAndClamped(torch.nn.Module):
    """A residual stream with a ReLU behind its addition; no MobileNet has one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inner = torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 8, 1)
        self.last = torch.nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(torch.relu(x + self.inner(x))).flatten(1)


def test_channels_before_a_relu_behind_an_addition_keep_their_sign():
    before = networks.model_of(AddedAndClamped())
    after = equalize(before, networks.calibration(32))
    networks.assert_same_outputs(before, after, networks.pixels(32))


def reaches_up(model):
    """Return whether each channel of the last residual stream reaches further up than down."""
    traced = trace(model)
    stream = [op.output for op in find_fused_ops(traced) if op.kind == "add"][-1]
    shared_encodings = find_shared_encodings(traced, find_fused_ops(traced))
    nodes = next(shared.nodes for shared in shared_encodings if stream in shared.nodes)
    stats = observe(traced, nodes, networks.calibration(32)).values()
    highest = np.max([s.maxima.max(0) for s in stats], axis=0)
    lowest = np.min([s.minima.min(0) for s in stats], axis=0)
    return highest >= -lowest


def test_the_signal_of_squeeze_and_excitation_is_scaled_and_its_gate_is_not():
    before, after = (
        maxima_of_muls(make("v3-small")) for make in (networks.folded, networks.equalized)
    )
    np.testing.assert_allclose(after["gates"], before["gates"], rtol=1e-4, atol=1e-5)
    assert not np.allclose(after["signals"], before["signals"], rtol=1e-2)


def maxima_of_muls(model):
    """Return the maximum of each channel of the two operands of every multiplication."""
    traced = trace(model)
    muls = [op for op in find_fused_ops(traced) if op.kind == "multiply"]
    pairs = [sorted(op.activations, key=lambda n: "hardsigmoid" in n.name) for op in muls]
    stats = observe(traced, [n for pair in pairs for n in pair], networks.calibration(32))
    return {
        name: np.concatenate([stats[pair[index].name].maxima.max(0) for pair in pairs])
        for index, name in enumerate(("signals", "gates"))
    }


@pytest.mark.ci
@EVERY_FAMILY
def test_rescaled_statistics_equal_those_of_the_rescaled_network(family):
    images = networks.calibration(32)
    for model in (
        networks.equalized(family),
        learn_equalization(networks.equalized(family), images),
    ):
        known = model.observations
        assert known.module is model.module
        traced = trace(model)
        nodes = [node for node in traced.graph.nodes if node.name in known.by_node]
        assert len(nodes) == len(known.by_node) > 20
        for name, stats in observe(traced, nodes, images).items():
            for found, expected in (
                (known.by_node[name].minima, stats.minima),
                (known.by_node[name].maxima, stats.maxima),
            ):
                assert np.abs(found - expected).max() <= 2e-4 * np.abs(expected).max(), name


def test_statistics_are_reused_for_the_same_images_and_graph_only(monkeypatch):
    images = networks.calibration(32)
    model = equalize(networks.folded("v1"), images)
    calls = []
    original = observers.observe
    monkeypatch.setattr(observers, "observe", lambda *args: calls.append(1) or original(*args))
    for other, calibration, expected in (
        (model, images, 0),
        (model, networks.calibration(32), 1),
        (replace(model, module=trace(model)), images, 1),
        (networks.folded("v1"), images, 1),
    ):
        calls.clear()
        make_plan(other, calibration, QuantRecipe(range_rule="minmax"))
        assert len(calls) == expected
