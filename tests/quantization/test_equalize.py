"""Equalization: other weights, evener channels, the same function."""

import copy
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.errors import DataError
from mobiledeploy.graph import observers as observe_module
from mobiledeploy.graph.aten_graph import (
    find_fused_ops,
    find_shared_encodings,
    module_of,
    trace,
    weight_and_bias,
)
from mobiledeploy.graph.channel_groups import find_groups
from mobiledeploy.graph.observers import observe
from mobiledeploy.models.spec import FAMILIES
from mobiledeploy.network import QuantRecipe
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.quantization.plan import plan

FIRST = "features.1.block.0.0"
EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


@EVERY_FAMILY
def test_the_outputs_on_the_calibration_images_stay_what_they_were(family):
    before, after = networks.folded(family), networks.equalized(family)
    networks.assert_same_outputs(before, after, networks.pixels(32))


def test_several_filters_of_one_channel_all_take_its_factor():
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


def test_equalizing_leaves_the_model_as_it_was():
    model = networks.folded("v2", short=True)
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    equalize(model, networks.calibration(32))
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def unevenness(model):
    """Return the largest channel over the geometric mean channel, of every residual stream."""
    traced = trace(model)
    adds = [op.output for op in find_fused_ops(traced) if op.kind == "add"]
    seen = observe(traced, adds, networks.calibration(32)).values()
    largest = [np.maximum(s.maxima.max(0), -s.minima.min(0)) for s in seen]
    return np.array([m.max() / np.exp(np.log(m).mean()) for m in largest])


def test_the_channels_of_residual_streams_become_evener():
    before, after = unevenness(networks.folded("v2")), unevenness(networks.equalized("v2"))
    assert (
        after <= before
    ).all()  # the first stream begins at the stem's ReLU6: it keeps its scale
    assert after.mean() - 1 < 0.7 * (before.mean() - 1)


def test_dead_channels_stay_as_they_are_and_do_not_keep_others_from_becoming_even():
    model = networks.folded("v3-small", short=True)
    module = copy.deepcopy(model.module)
    depthwise = module.get_submodule(FIRST)
    dead = np.arange(len(depthwise.weight)) % 2 == 0
    with torch.no_grad():
        depthwise.weight[dead] = 0
        depthwise.bias[dead] = -1
    silenced = replace(model, module=module)

    def reached(network):
        traced = trace(network)
        (op,) = (u for u in find_fused_ops(traced) if module_of(u.operator).startswith(FIRST))
        (seen,) = observe(traced, [op.output], networks.calibration(32)).values()
        return seen.maxima.max(0)

    before, after = reached(silenced), reached(equalize(silenced, networks.calibration(32)))
    assert (after[dead] == 0).all()
    assert np.ptp(np.log(after[~dead])) < 0.8 * np.ptp(np.log(before[~dead]))


@pytest.mark.parametrize(("count", "margin"), [(4, 2.5), (9, 2.0)])
def test_below_a_relu6_channels_are_scaled_up_but_leave_room_for_images_not_seen(count, margin):
    model, images = networks.folded("v2", short=True), networks.calibration(32, count)
    before = reached_below_relu6(model, images)
    after = reached_below_relu6(equalize(model, images), images)
    room = np.minimum(6 / margin, 64 * before)  # what is nearly dead is not blown up without end
    assert (before < 0.9 * room).any()
    np.testing.assert_allclose(after, np.maximum(before, room), rtol=1e-4)


def reached_below_relu6(model, images):
    """Return how far the channels of ReLU6 in front of depthwise convolutions reach."""
    traced = trace(model)
    groups = [g for g in find_groups(traced, find_fused_ops(traced)) if g.ceiling == 6]
    nodes = [g.nodes[0] for g in groups if weight_and_bias(traced, g.consumers[0])[0].shape[1] == 1]
    return np.concatenate([o.maxima.max(0) for o in observe(traced, nodes, images).values()])


def test_no_images_are_refused():
    with pytest.raises(DataError, match="calibration set is empty"):
        equalize(networks.folded("v2", short=True), networks.calibration(32, 0))


def test_channels_of_a_residual_stream_lean_to_one_side():
    """Turned round where they lean to the other: the range of all is half as wide."""
    before, after = leaning(networks.folded("v2")), leaning(networks.equalized("v2"))
    assert 0.2 < np.mean(before) < 0.8
    assert np.mean(after) == 1


class AddedAndClamped(torch.nn.Module):
    """A residual stream with a ReLU behind its addition, as no MobileNet has it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.inner = torch.nn.Conv2d(3, 8, 1), torch.nn.Conv2d(8, 8, 1)
        self.last = torch.nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.first(x)
        return self.last(torch.relu(x + self.inner(x))).flatten(1)


def test_channels_in_front_of_a_relu_behind_an_addition_keep_their_sign():
    before = replace(networks.folded("v1", short=True), module=AddedAndClamped().eval())
    after = equalize(before, networks.calibration(32))
    networks.assert_same_outputs(before, after, networks.pixels(32))


def leaning(model):
    """Return whether each channel of the last residual stream reaches further up than down."""
    traced = trace(model)
    stream = [op.output for op in find_fused_ops(traced) if op.kind == "add"][-1]
    shared_encodings = find_shared_encodings(traced, find_fused_ops(traced))
    nodes = next(shared.nodes for shared in shared_encodings if stream in shared.nodes)
    seen = observe(traced, nodes, networks.calibration(32)).values()
    highest = np.max([s.maxima.max(0) for s in seen], axis=0)
    lowest = np.min([s.minima.min(0) for s in seen], axis=0)
    return highest >= -lowest


def test_channels_are_scaled_through_a_product_and_its_gate_is_left_alone():
    """Of squeeze-and-excitation: the tensor may be scaled, a gate between 0 and 1 gains nothing."""
    before, after = (
        largest_factors(make("v3-small")) for make in (networks.folded, networks.equalized)
    )
    np.testing.assert_allclose(after["gates"], before["gates"], rtol=1e-4, atol=1e-5)
    assert not np.allclose(after["tensors"], before["tensors"], rtol=1e-2)


def largest_factors(model):
    """Return the largest value of each channel of each product's two factors."""
    traced = trace(model)
    products = [op for op in find_fused_ops(traced) if op.kind == "multiply"]
    pairs = [sorted(p.activations, key=lambda n: "hardsigmoid" in n.name) for p in products]
    seen = observe(traced, [n for pair in pairs for n in pair], networks.calibration(32))
    return {
        name: np.concatenate([seen[pair[which].name].maxima.max(0) for pair in pairs])
        for which, name in enumerate(("tensors", "gates"))
    }


@EVERY_FAMILY
def test_what_was_observed_is_what_would_be_seen_again(family):
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
        for name, seen in observe(traced, nodes, images).items():
            for was, again in (
                (known.by_node[name].minima, seen.minima),
                (known.by_node[name].maxima, seen.maxima),
            ):
                assert np.abs(was - again).max() <= 2e-4 * np.abs(again).max(), name


def test_observations_are_of_these_images_and_this_graph_only(monkeypatch):
    images = networks.calibration(32)
    model = equalize(networks.folded("v1"), images)
    watched = []
    again = observe_module.observe
    monkeypatch.setattr(
        observe_module, "observe", lambda *given: watched.append(1) or again(*given)
    )
    for other, calibration, expected in (
        (model, images, 0),
        (model, networks.calibration(32), 1),
        (replace(model, module=trace(model)), images, 1),
        (networks.folded("v1"), images, 1),
    ):
        watched.clear()
        plan(other, calibration, QuantRecipe(range_rule="minmax"))
        assert len(watched) == expected
