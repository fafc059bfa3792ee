"""The range of a multiplication is chosen with its quantized inputs."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.quantization.hutchinson import Probe
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.quantization.mul_ranges import WIDTHS, MulProbes, probe_muls
from mobiledeploy.quantization.plan_builder import PlanBuilder
from mobiledeploy.stages import CalibrationSet, Encoding, QuantRecipe

SIDE, CHANNELS = 32, 4
IMAGES = networks.pixels(SIDE, count=12)


class Gated(nn.Module):
    """Channels times a gate that is near 1/2 for every image."""

    def __init__(self, activation):
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 1)
        self.gate = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.last = nn.Conv2d(CHANNELS, 2, 1)
        self.activation = activation
        torch.manual_seed(0)
        with torch.no_grad():
            # the small channels use few codes, and the logits depend on them most
            size = torch.tensor([4.0, 0.05, 0.05, 0.05])
            self.first.weight.copy_(size[:, None, None, None] * torch.randn(CHANNELS, 3, 1, 1))
            self.first.bias.copy_(0.4 * size)
            self.last.weight.copy_((1 / size).view(1, -1, 1, 1) * torch.randn(2, CHANNELS, 1, 1))
            self.gate.weight.mul_(1e-3)
            self.gate.bias.zero_()

    def forward(self, x):
        x = self.activation(self.first(x))
        gate = F.hardsigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return self.last(x * gate).flatten(1)


class PartlyQuantized(torch.fx.Interpreter):
    """Fake-quantizes the values of some nodes."""

    def __init__(self, traced, encodings):
        super().__init__(traced)
        self.encodings = encodings

    def run_node(self, n):
        value = super().run_node(n)
        if n.name not in self.encodings:
            return value
        encoding = self.encodings[n.name]
        return torch.fake_quantize_per_tensor_affine(
            value, encoding.scale, encoding.zero_point, -128, 127
        )


def gated_network(activation):
    """Return a gated network, encodings for every width, and the true cost of each."""
    calibration = CalibrationSet(images=IMAGES, source="", sha256="")
    builder = PlanBuilder.of(networks.model_of(Gated(activation)), calibration)
    (mul,) = [op for op in builder.ops if op.kind == "multiply"]
    images = torch.from_numpy(IMAGES)
    involved = {mul.output.name, *(node.name for node in mul.activations)}
    involved |= {op.activations[0].name for op in builder.ops if op.kind == "hardswish"}
    ranges = builder.narrowed(1.0)
    low, high = ranges[mul.output.name]
    candidates, costs = [], []
    for width in WIDTHS:
        plan = builder.build({**ranges, mul.output.name: (width * low, width * high)})
        candidates.append(plan.encodings)
        network = PartlyQuantized(builder.traced, {name: plan.encodings[name] for name in involved})
        with torch.no_grad():
            error = (network.run(images) - builder.traced(images)).reshape(len(images), 2, -1)
        costs.append(float((error - error.mean((0, 2), keepdim=True)).square().sum()))
    return builder, candidates, np.array(costs)


@pytest.mark.parametrize("activation", [F.relu, F.hardswish])
def test_the_width_that_is_chosen_costs_the_logits_little(activation):
    builder, candidates, costs = gated_network(activation)
    muls = probe_muls(builder.traced, builder.ops, IMAGES)
    (index,) = muls.cheapest(candidates).values()
    assert costs[index] < 1.15 * costs.min()
    assert costs.max() > 2 * costs[index]


def test_the_input_of_a_hardswish_is_quantized_as_well():
    builder, candidates, costs = gated_network(F.hardswish)
    muls = probe_muls(builder.traced, builder.ops, IMAGES)
    (op,) = muls.ops
    predicted = np.array([muls.cost(op, encodings) for encodings in candidates])
    assert np.corrcoef(np.log(predicted), np.log(costs))[0, 1] > 0.95
    without = replace(muls, hardswish_inputs={})
    worse = np.array([without.cost(op, encodings) for encodings in candidates])
    assert np.abs(np.log(predicted / costs)).mean() < np.abs(np.log(worse / costs)).mean()


def test_the_mean_error_of_a_channel_costs_nothing():
    """Bias correction removes it."""
    builder, candidates, _ = gated_network(F.relu)
    muls = probe_muls(builder.traced, builder.ops, IMAGES)
    (op,) = muls.ops
    cost = muls.cost(op, candidates[0])
    for probes in muls.batches:
        probes[op.output].value.add_(0.5)
    assert muls.cost(op, candidates[0]) == pytest.approx(cost, rel=1e-2)


def test_the_cost_does_not_depend_on_how_images_are_batched():
    builder, candidates, _ = gated_network(F.hardswish)
    whole = probe_muls(builder.traced, builder.ops, IMAGES)
    (probes,) = whole.batches
    batches = [
        {
            node: Probe(node, probed.value[batch], tuple(g[batch] for g in probed.gradients))
            for node, probed in probes.items()
        }
        for batch in (slice(0, 5), slice(5, 6), slice(6, len(IMAGES)))
    ]
    batched = replace(whole, batches=tuple(batches))
    (op,) = whole.ops
    for encodings in candidates[:3]:
        expected = whole.cost(op, encodings)
        assert batched.cost(op, encodings) == pytest.approx(expected, rel=1e-4)


class ManyMultiplications(nn.Module):
    """Multiplications of multiplications, of a hard-swish of one, and without height and width."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = x * x * F.hardswish(x * x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.last(x * x)


def test_multiplications_may_be_nested_and_have_no_height():
    traced = trace(networks.model_of(ManyMultiplications()))
    ops = find_fused_ops(traced)
    muls = probe_muls(traced, ops, IMAGES)
    encoding = Encoding(scale=0.1, zero_point=-128)
    coarse = {node.name: encoding for node in traced.graph.nodes}
    fine = {node.name: replace(encoding, scale=0.01) for node in traced.graph.nodes}
    cheapest = muls.cheapest([coarse, fine])
    assert set(cheapest) == {op.output for op in ops if op.kind == "multiply"}
    assert len(cheapest) == 4


def test_a_network_without_multiplications_needs_no_images():
    traced = trace(networks.folded("v2", short=True))
    muls = probe_muls(traced, find_fused_ops(traced), None)
    assert muls.ops == ()
    assert muls.cheapest([{}]) == {}


@pytest.mark.parametrize("index", [3, 20])
def test_a_plan_takes_the_cheapest_width_of_each_multiplication(index, monkeypatch):
    def cheapest(self, candidates):
        assert len(candidates) == len(WIDTHS)
        return dict.fromkeys((op.output for op in self.ops), index)

    monkeypatch.setattr(MulProbes, "cheapest", cheapest)
    model, images = networks.equalized("v3-small", short=True), networks.calibration(32)
    widest = make_plan(model, images, QuantRecipe(range_rule="minmax"))
    chosen = make_plan(model, images, QuantRecipe())
    names = [op.output.name for op in chosen.ops if op.kind == "multiply"]
    assert names
    for name in names:
        ratio = chosen.encodings[name].scale / widest.encodings[name].scale
        assert ratio == pytest.approx(WIDTHS[index], rel=0.03)  # widened to avoid ties
