"""Arithmetic with constants becomes BatchNorm; activations become arithmetic."""

import pytest
import torch
import torch.nn.functional as F
from flat_graphs import flat
from torch import nn

aten = torch.ops.aten
NORM = aten.batch_norm.default


class Scaled(nn.Module):
    """A learned scale and offset per channel."""

    def __init__(self, shape):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(-1, 2, 8))
        self.offset = nn.Parameter(torch.linspace(1, -3, 8))
        self.shape = shape

    def forward(self, x):
        return self.scale.view(self.shape) * x + self.offset.exp().view(self.shape)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * 3,
        lambda x: 3.5 * x,
        lambda x: x + 1,
        lambda x: 1 - x,
        lambda x: x - 0.5,
        lambda x: x / 255,
        lambda x: -x,
        lambda x: torch.add(x, 2, alpha=3),
        lambda x: x.mul_(0.5),
    ],
)
def test_a_number_becomes_a_batch_norm(function):
    assert flat(function) == [NORM]


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1)])
def test_a_constant_per_channel_becomes_a_batch_norm(shape):
    assert flat(Scaled(shape)) == [NORM, NORM]


def test_a_vector_is_scaled_too():
    assert flat(lambda x: x.mean([2, 3]) * 2)[-1] is NORM


def test_a_difference_is_an_addition():
    assert flat(lambda x: torch.relu(x) - x) == [aten.relu.default, NORM, aten.add.Tensor]


@pytest.mark.parametrize("constant", [torch.ones(32), torch.ones(32, 1)])
def test_a_constant_per_pixel_stays_as_it_is(constant):
    assert flat(lambda x: x + constant) == [aten.add.Tensor]


def test_a_constant_that_the_code_makes_is_evaluated():
    assert flat(lambda x: x * torch.full((8, 1, 1), 3.0)) == [NORM]


def test_tanh_is_made_of_a_sigmoid():
    assert flat(nn.Tanh()) == [NORM, aten.sigmoid.default, NORM, NORM]


@pytest.mark.parametrize(
    "function", [nn.LeakyReLU(0.1), nn.PReLU(), nn.PReLU(8, init=-0.5), F.leaky_relu]
)
def test_leaky_relus_are_made_of_a_relu(function):
    assert flat(function) == [aten.relu.default, NORM, NORM, aten.add.Tensor]
