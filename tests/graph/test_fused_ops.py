"""Every operator belongs to one int8 operator, or is refused by name."""

import networks
import pytest
import torch
from networks import FAMILIES
from own_networks import Convolution
from torch import nn

from mobiledeploy.errors import ExportError
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops, weight_and_bias

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


class Arithmetic(nn.Module):
    """A convolution, and arithmetic with its result."""

    def __init__(self, compute):
        super().__init__()
        self.conv, self.compute = nn.Conv2d(3, 4, 3), compute
        self.constant = nn.Parameter(torch.ones(1, 4, 1, 1))

    def forward(self, x):
        return self.compute(self.conv(x), self.constant)


@EVERY_FAMILY
def test_every_operator_belongs_to_one_fused_operator(family):
    traced = trace(networks.folded(family))
    ops = find_fused_ops(traced)
    fused = [node for op in ops for node in {op.operator, op.output}]
    assert len(fused) == len(set(fused))
    assert set(fused) == {node for node in traced.graph.nodes if node.op == "call_function"}


def test_a_convolution_and_its_relu6_are_one_fused_operator():
    ops = find_fused_ops(trace(networks.folded("v2")))
    clamps = [op.clamp for op in ops if op.kind == "convolution"]
    # the stem, 17 depthwise layers, 16 expansions and the head clamp; 17 projections do not
    assert clamps.count((0.0, 6.0)) == 1 + 17 + 16 + 1
    assert clamps.count(None) == 17


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.Tanh(), "tanh"),
        (nn.SiLU(), "silu"),
        (nn.MaxPool2d(2, dilation=2), "max_pool2d"),
        (nn.MaxPool2d(3, ceil_mode=True), "max_pool2d"),
        (nn.AdaptiveAvgPool2d(2), "adaptive_avg_pool2d"),
        (nn.Softmax(1), "softmax"),
        (nn.BatchNorm2d(4), "batch_norm"),
        (nn.ReflectionPad2d(1), "pad"),
        (nn.ConstantPad2d(1, 0.5), "pad"),
        (nn.ZeroPad2d((0, 1, 0, -1)), "pad"),
    ],
)
def test_an_operator_without_an_int8_form_is_refused_by_name(activation, name):
    with pytest.raises(ExportError, match=f"{name}.*has no int8 form") as caught:
        find_fused_ops(trace(networks.model_of(Convolution(activation), 8)))
    assert "--int8" in caught.value.remedy


@pytest.mark.parametrize(
    ("compute", "name"),
    [
        (lambda x, _: x + 0.5, r"add\.Tensor"),
        (lambda x, _: x * 2.0, r"mul\.Tensor"),
        (lambda x, constant: x + constant, r"add\.Tensor"),
        (lambda x, constant: constant * x, r"mul\.Tensor"),
        (lambda x, _: torch.add(x, x, alpha=2), r"add\.Tensor"),
    ],
)
def test_arithmetic_with_a_number_is_refused_by_name(compute, name):
    with pytest.raises(ExportError, match=f"{name}.*has no int8 form"):
        find_fused_ops(trace(networks.model_of(Arithmetic(compute), 8)))


def test_arithmetic_with_two_activations_has_an_int8_form():
    for compute in (lambda x, _: x + x, lambda x, _: x * torch.relu(x)):
        assert find_fused_ops(trace(networks.model_of(Arithmetic(compute), 8)))


def test_a_network_that_ends_in_softmax_is_told_to_return_the_logits():
    def remedy(module):
        with pytest.raises(ExportError, match=r"softmax.*has no int8 form") as refused:
            find_fused_ops(trace(networks.model_of(module, 8)))
        return refused.value.remedy

    assert "Return the logits" in remedy(Convolution(nn.Softmax(1)))
    inside = Arithmetic(lambda x, _: torch.relu(x.softmax(1)))
    assert "Return the logits" not in remedy(inside)


def test_a_sigmoid_gate_has_an_int8_form():
    model = networks.folded("v3-small", short=True, se_gate="sigmoid")
    assert "sigmoid" in {op.kind for op in find_fused_ops(trace(model))}


def test_a_missing_bias_becomes_zeros():
    model = networks.model_of(Convolution(nn.ReLU(), bias=False), 8)
    traced = trace(model)
    (op,) = find_fused_ops(traced)
    weight, bias = weight_and_bias(traced, op)
    assert weight.shape == (4, 3, 1, 1)
    assert torch.equal(bias, torch.zeros(4))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(traced(x), model.module(x))
    bias.fill_(1.0)  # the graph reads this tensor
    assert torch.equal(weight_and_bias(traced, op)[1], torch.ones(4))
    torch.testing.assert_close(traced(x), torch.relu(model.module.conv(x) + 1))


def test_a_layer_is_named_after_its_module():
    ops = find_fused_ops(trace(networks.folded("v2", short=True)))
    names = [op.layer for op in ops if op.has_weight]
    assert names[0] == "features.0.0"
    assert names[-1] == "classifier.1"
    assert len(set(names)) == len(names)
