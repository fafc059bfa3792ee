"""Channels of a group can be rescaled without changing the network's function."""

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.channel_groups import find_groups, rescale, rescale_all
from mobiledeploy.graph.fold_graph import fold_graph
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.graph.observers import observe
from mobiledeploy.quantization.equalize import equalize

IMAGES = networks.calibration(32)


def scales_of(group, channels, random):
    """Return random scales; negative ones only if no activation is involved."""
    scales = random.uniform(0.5, 2.0, channels)
    if group.linear:
        scales *= random.choice([-1, 1], channels)
    return torch.from_numpy(scales.astype(np.float32))


def channels_of(group):
    return group.nodes[0].meta["val"].shape[1]


@pytest.mark.parametrize(
    ("family", "options"), [("v1", {"activation": "relu"}), ("v2", {}), ("v3-small", {})]
)
def test_rescaling_a_group_below_its_ceiling_keeps_the_outputs(family, options):
    traced = trace(networks.folded(family, short=True, **options))
    groups = [g for g in find_groups(traced, find_fused_ops(traced)) if np.isinf(g.ceiling)]
    assert groups
    images = torch.from_numpy(IMAGES.images)
    random = np.random.default_rng(0)
    with torch.no_grad():
        before = traced(images)
        weights = {name: p.clone() for name, p in traced.named_parameters()}
        for group in groups:
            rescale(traced, group, scales_of(group, channels_of(group), random))
        after = traced(images)
    assert any(not torch.equal(p, weights[name]) for name, p in traced.named_parameters())
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)


def test_the_input_the_logits_and_gates_are_in_no_group():
    traced = trace(networks.folded("v3-small", short=True))
    ops = find_fused_ops(traced)
    grouped = {node for group in find_groups(traced, ops) for node in group.nodes}
    assert grouped
    (source,) = traced.graph.find_nodes(op="placeholder")
    gates = {op.output for op in ops if op.clamp == (0.0, 1.0)}
    hardswish = {n for op in ops if op.kind == "hardswish" for n in (*op.activations, op.output)}
    assert gates
    assert hardswish
    assert not grouped & {source, ops[-1].output, *gates, *hardswish}


def test_a_group_below_a_relu6_has_its_ceiling_and_positive_scales_only():
    traced = trace(networks.folded("v2", short=True))
    groups = find_groups(traced, find_fused_ops(traced))
    assert {group.ceiling for group in groups} == {6.0, float("inf")}
    assert all(group.linear == np.isinf(group.ceiling) for group in groups)


def test_statistics_are_rescaled_with_the_channels():
    traced = trace(networks.folded("v2", short=True))
    groups = [g for g in find_groups(traced, find_fused_ops(traced)) if g.linear]
    nodes = [node for group in groups for node in group.nodes]
    before = observe(traced, nodes, IMAGES)
    random = np.random.default_rng(0)
    scales = [scales_of(group, channels_of(group), random) for group in groups]
    predicted = rescale_all(traced, zip(groups, scales, strict=True), before)
    for name, expected in observe(traced, nodes, IMAGES).items():
        np.testing.assert_allclose(predicted[name].maxima, expected.maxima, rtol=1e-3, atol=1e-4)
        assert not np.allclose(before[name].maxima, expected.maxima, rtol=1e-2)


def test_channels_that_a_flatten_splits_are_in_no_group():
    layers = [torch.nn.Conv2d(3, 4, 3, 16, 1), torch.nn.ReLU(), torch.nn.Flatten()]
    module = torch.nn.Sequential(*layers, torch.nn.Linear(16, 5)).eval()
    traced = trace(fold_graph(networks.model_of(module)))
    assert find_groups(traced, find_fused_ops(traced)) == ()


class Clamped(torch.nn.Module):
    """A clamp between convolutions."""

    def __init__(self, low, high):
        super().__init__()
        self.one, self.two = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 5, 3)
        self.bounds = low, high

    def forward(self, x):
        return self.two(self.one(x).clamp(*self.bounds)).mean([2, 3])


@pytest.mark.parametrize(
    ("low", "high", "count"), [(0.0, 6.0, 1), (0.0, 1.0, 1), (-0.7, 0.9, 0), (0.1, 0.6, 0)]
)
def test_only_a_clamp_that_starts_at_zero_is_below_a_group(low, high, count):
    torch.manual_seed(0)
    model = fold_graph(networks.model_of(Clamped(low, high).eval()))
    traced = trace(model)
    assert len(find_groups(traced, find_fused_ops(traced))) == count
    images = torch.from_numpy(IMAGES.images)
    with torch.no_grad():
        expected, found = model.module(images), equalize(model, IMAGES).module(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
