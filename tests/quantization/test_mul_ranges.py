"""A product's range is judged with the codes that the product is made of."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mobiledeploy.graph.aten_graph import find_fused_ops, find_shared_encodings, trace
from mobiledeploy.network import Encoding, Preprocessing, QuantRecipe
from mobiledeploy.quantization.encodings import choose_encodings
from mobiledeploy.quantization.hutchinson import Probe
from mobiledeploy.quantization.mul_ranges import WIDTHS, MulRanges, find_mul_ranges
from mobiledeploy.quantization.plan import plan

SIDE, CHANNELS = 32, 4
IMAGES = networks.pixels(SIDE, count=12)


class Gated(nn.Module):
    """Channels that a gate multiplies which is near 1/2 whatever it sees."""

    def __init__(self, activation):
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 1)
        self.gate = nn.Conv2d(CHANNELS, CHANNELS, 1)
        self.last = nn.Conv2d(CHANNELS, 2, 1)
        self.activation = activation
        torch.manual_seed(0)
        with torch.no_grad():
            # a quiet channel needs few codes, and is heard best
            loud = torch.tensor([4.0, 0.05, 0.05, 0.05])
            self.first.weight.copy_(loud[:, None, None, None] * torch.randn(CHANNELS, 3, 1, 1))
            self.first.bias.copy_(0.4 * loud)
            self.last.weight.copy_((1 / loud).view(1, -1, 1, 1) * torch.randn(2, CHANNELS, 1, 1))
            self.gate.weight.mul_(1e-3)
            self.gate.bias.zero_()

    def forward(self, x):
        x = self.activation(self.first(x))
        gate = F.hardsigmoid(self.gate(F.adaptive_avg_pool2d(x, 1)))
        return self.last(x * gate).flatten(1)


class Coded(torch.fx.Interpreter):
    """Puts the values of some nodes onto their codes."""

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


def setting(activation):
    """Return a gated network, its units, encodings for every width, and what each truly costs."""
    module = Gated(activation).eval()
    traced = trace(replace(networks.folded("v1", short=True), module=module))
    ops = find_fused_ops(traced)
    shared_encodings = find_shared_encodings(traced, ops)
    (product,) = [op for op in ops if op.kind == "multiply"]
    images = torch.from_numpy(IMAGES)
    values = {}

    class Watched(torch.fx.Interpreter):
        def run_node(self, n):
            values[n.name] = super().run_node(n)
            return values[n.name]

    with torch.no_grad():
        wanted = Watched(traced).run(images)
    ranges = {
        s.name: (float(values[s.name].min()), float(values[s.name].max())) for s in shared_encodings
    }
    involved = {product.output.name, *(node.name for node in product.activations)}
    involved |= {u.activations[0].name for u in ops if u.kind == "hardswish"}
    choices, costs = [], []
    for width in WIDTHS:
        low, high = ranges[product.output.name]
        at_width = {**ranges, product.output.name: (width * low, width * high)}
        by_shared_encoding = choose_encodings(ops, shared_encodings, at_width, Preprocessing())
        choices.append(
            {
                node.name: by_shared_encoding[shared.name]
                for shared in shared_encodings
                for node in shared.nodes
            }
        )
        coded = Coded(traced, {name: choices[-1][name] for name in involved})
        with torch.no_grad():
            error = (coded.run(images) - wanted).reshape(len(images), 2, -1)
        costs.append(float((error - error.mean((0, 2), keepdim=True)).square().sum()))
    return traced, ops, choices, np.array(costs)


@pytest.mark.parametrize("activation", [F.relu, F.hardswish])
def test_of_many_widths_one_is_taken_that_costs_the_logits_little(activation):
    traced, ops, choices, costs = setting(activation)
    products = find_mul_ranges(traced, ops, IMAGES)
    (number,) = products.best(choices).values()
    assert costs[number] < 1.15 * costs.min()
    assert costs.max() > 2 * costs[number]


def test_what_a_hard_swish_is_taken_of_is_on_codes_as_well():
    traced, ops, choices, costs = setting(F.hardswish)
    products = find_mul_ranges(traced, ops, IMAGES)
    (op,) = products.ops
    foretold = np.array([products._cost(op, encodings) for encodings in choices])
    assert np.corrcoef(np.log(foretold), np.log(costs))[0, 1] > 0.95
    without = replace(products, hardswished={})
    unaware = np.array([without._cost(op, encodings) for encodings in choices])
    assert np.abs(np.log(foretold / costs)).mean() < np.abs(np.log(unaware / costs)).mean()


def test_the_mean_error_of_a_channel_costs_nothing_because_a_bias_makes_good_for_it():
    traced, ops, choices, _ = setting(F.relu)
    products = find_mul_ranges(traced, ops, IMAGES)
    (op,) = products.ops
    cost = products._cost(op, choices[0])
    for few in products.seen:
        few[op.output].value.add_(0.5)
    assert products._cost(op, choices[0]) == pytest.approx(cost, rel=1e-2)


def test_images_in_parts_cost_the_same():
    traced, ops, choices, _ = setting(F.hardswish)
    whole = find_mul_ranges(traced, ops, IMAGES)
    (seen,) = whole.seen
    cut = [
        {
            node: Probe(node, probed.value[part], tuple(g[part] for g in probed.gradients))
            for node, probed in seen.items()
        }
        for part in (slice(0, 5), slice(5, 6), slice(6, len(IMAGES)))
    ]
    in_parts = replace(whole, seen=tuple(cut))
    (op,) = whole.ops
    for encodings in choices[:3]:
        expected = whole._cost(op, encodings)
        assert in_parts._cost(op, encodings) == pytest.approx(expected, rel=1e-4)


class ManyProducts(nn.Module):
    """Products of products, of a hard-swish of a product, and of what has no height and width."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 1)
        self.last = nn.Linear(4, 2)

    def forward(self, x):
        x = F.relu(self.first(x))
        x = x * x * F.hardswish(x * x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.last(x * x)


def test_a_product_may_be_made_of_products_and_have_no_height():
    module = ManyProducts().eval()
    traced = trace(replace(networks.folded("v1", short=True), module=module))
    ops = find_fused_ops(traced)
    products = find_mul_ranges(traced, ops, IMAGES)
    encoding = Encoding(scale=0.1, zero_point=-128)
    fine = {node.name: replace(encoding, scale=0.01) for node in traced.graph.nodes}
    best = products.best([{node.name: encoding for node in traced.graph.nodes}, fine])
    assert set(best) == {op.output for op in ops if op.kind == "multiply"}
    assert len(best) == 4


def test_a_network_without_products_has_nothing_to_look_at():
    model = networks.folded("v2", short=True)
    traced = trace(model)
    products = find_mul_ranges(traced, find_fused_ops(traced), None)
    assert products.ops == ()
    assert products.best([{}]) == {}


@pytest.mark.parametrize("number", [3, 20])
def test_a_plan_has_each_product_at_the_width_that_costs_least(number, monkeypatch):
    def best(self, choices):
        assert len(choices) == len(WIDTHS)
        return dict.fromkeys((op.output for op in self.ops), number)

    monkeypatch.setattr(MulRanges, "best", best)
    model, images = networks.equalized("v3-small", short=True), networks.calibration(32)
    widest = plan(model, images, QuantRecipe(range_rule="minmax"))
    chosen = plan(model, images, QuantRecipe())
    products = [op.output.name for op in chosen.ops if op.kind == "multiply"]
    assert products
    for name in products:
        ratio = chosen.encodings[name].scale / widest.encodings[name].scale
        assert ratio == pytest.approx(WIDTHS[number], rel=0.03)  # widened to be clear of half-way
