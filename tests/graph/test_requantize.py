"""Identity convolutions where one tensor needs two encodings."""

import networks
import torch
from torch import nn

from mobiledeploy.graph.canonical_graph import canonical_graph
from mobiledeploy.graph.requantize import insert_requantizations

IMAGES = torch.from_numpy(networks.pixels(32, count=3))


class Block(nn.Module):
    """Two convolutions and a function of their outputs."""

    def __init__(self, function):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)
        self.function = function

    def forward(self, x):
        return self.function(self.a(x), self.b(x)).mean([2, 3])


def inserted(function):
    module = Block(function).eval()
    traced = canonical_graph(module, (1, 3, 32, 32))
    before = len(list(traced.graph.nodes))
    insert_requantizations(traced)
    traced.recompile()
    with torch.no_grad():
        torch.testing.assert_close(traced(IMAGES), module(IMAGES), rtol=1e-5, atol=1e-6)
    return (len(list(traced.graph.nodes)) - before) // 3  # weight, bias, convolution


def test_a_product_that_is_added_is_requantized():
    assert inserted(lambda a, b: a * b + a) == 1
    assert inserted(lambda a, b: torch.relu(a * b) + a) == 1


def test_an_addition_in_front_of_a_hard_swish_is_requantized():
    assert inserted(lambda a, b: nn.functional.hardswish(a + b)) == 1


def test_a_convolution_that_others_read_is_requantized_for_its_hard_swish():
    assert inserted(lambda a, b: nn.functional.hardswish(a) * b * a) == 1


def test_nothing_is_inserted_where_one_encoding_does():
    assert inserted(lambda a, b: torch.relu(a + b)) == 0
    assert inserted(lambda a, b: nn.functional.hardswish(a) * b) == 0
