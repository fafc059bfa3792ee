"""Small functions as flat graphs."""

import networks
import torch
from torch import nn

from mobiledeploy.graph.canonical_graph import canonical_graph

SHAPE = (1, 3, 32, 32)
IMAGES = torch.from_numpy(networks.pixels(32, count=3))


class Body(nn.Module):
    """A convolution and a function of its output."""

    def __init__(self, function):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.function = function

    def forward(self, x):
        return self.function(self.conv(x))


def flat(function):
    """Return the operators behind the convolution; fail unless the graph computes the same."""
    module = Body(function).eval()
    traced = canonical_graph(module, SHAPE)
    with torch.no_grad():
        expected = torch.cat([module(image) for image in IMAGES.split(1)])
        torch.testing.assert_close(traced(IMAGES), expected, rtol=1e-5, atol=1e-5)
    return [node.target for node in traced.graph.nodes if node.op == "call_function"][1:]
