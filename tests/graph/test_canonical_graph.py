"""Any module as a flat graph: the ways to write an operator become one."""

import own_networks
import pytest
import torch
import torch.nn.functional as F
from flat_graphs import SHAPE, Body, flat
from torch import nn

from mobiledeploy.errors import UsageError
from mobiledeploy.graph.canonical_graph import canonical_graph

aten = torch.ops.aten


@pytest.mark.parametrize(
    "function",
    [
        own_networks.HardSwish(),
        lambda x: x * (F.relu6(x + 3) / 6),
        lambda x: x * torch.clamp(x + 3, 0, 6) * (1 / 6),
        lambda x: F.hardsigmoid(x) * x,
        nn.Hardswish(inplace=True),
    ],
)
def test_every_form_of_hard_swish_becomes_one_operator(function):
    assert flat(function) == [aten.hardswish.default]


def test_silu_becomes_a_product_with_its_sigmoid():
    assert flat(nn.SiLU(inplace=True)) == [aten.sigmoid.default, aten.mul.Tensor]


def test_a_product_with_another_tensors_gate_stays_a_product():
    assert flat(lambda x: x * (F.relu6(2 * x + 3) / 6))[-1] is aten.mul.Tensor


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.mean([2, 3]),
        lambda x: x.mean((-1, -2)),
        lambda x: x.mean(3).mean(2),
        lambda x: F.adaptive_avg_pool2d(x, 1).view(x.size(0), -1),
        lambda x: F.avg_pool2d(x, 32).reshape(x.shape[0], 8),
        lambda x: F.adaptive_avg_pool2d(x, (1, 1)).squeeze(-1).squeeze(-1),
        lambda x: torch.flatten(F.adaptive_avg_pool2d(x, 1), 1),
    ],
)
def test_every_form_of_global_average_pooling_becomes_pool_and_flatten(function):
    assert flat(function) == [aten.adaptive_avg_pool2d.default, aten.flatten.using_ints]


@pytest.mark.parametrize("function", [lambda x: x.clamp(min=0), nn.ReLU(inplace=True), F.relu])
def test_every_form_of_relu_becomes_one(function):
    assert flat(function) == [aten.relu.default]


@pytest.mark.parametrize("function", [F.relu6, nn.ReLU6(), lambda x: torch.clamp(x, 0, 6)])
def test_every_form_of_relu6_becomes_one(function):
    assert flat(function) == [aten.hardtanh.default]


def test_linear_squeeze_and_excitation_becomes_convolutions():
    found = flat(own_networks.LinearSqueeze(8))
    assert found == [
        aten.adaptive_avg_pool2d.default,
        aten.conv2d.default,
        aten.relu.default,
        aten.conv2d.default,
        aten.hardsigmoid.default,
        aten.mul.Tensor,
    ]


def test_a_view_that_names_one_image_is_freed_of_it():
    assert flat(lambda x: x.view(1, 2, 4 * 32 * 32))[0] is aten.reshape.default


@pytest.mark.parametrize(
    "function", [lambda x: x - x.mean(0, keepdim=True), lambda x: x.view(2, 4, 32, 32)[:1]]
)
def test_a_network_that_mixes_images_is_refused(function):
    with pytest.raises(UsageError, match="fixes its batch size, or depends on other images"):
        canonical_graph(Body(function).eval(), SHAPE)


def test_control_flow_on_values_is_refused():
    with pytest.raises(UsageError, match=r"Body cannot be traced by torch\.export"):
        canonical_graph(Body(lambda x: x if x.sum() > 0 else -x).eval(), SHAPE)


@pytest.mark.parametrize(
    "function",
    [
        nn.AvgPool2d(2),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.AvgPool2d((2, 4), stride=(1, 2)),
        nn.AdaptiveAvgPool2d((4, 8)),
    ],
)
def test_averages_of_windows_become_depthwise_convolutions(function):
    assert flat(function) == [aten.conv2d.default]


@pytest.mark.parametrize(
    "function",
    [
        nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False),
        nn.AvgPool2d(3, ceil_mode=True),
        nn.AdaptiveAvgPool2d(5),
    ],
)
def test_windows_of_different_sizes_stay_as_they_are(function):
    assert aten.conv2d.default not in flat(function)
