"""The traced graph computes what the module computes."""

import networks
import pytest
import torch
from networks import FAMILIES
from own_networks import Convolution
from torch import nn

from mobiledeploy.errors import ExportError
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


@EVERY_FAMILY
def test_the_traced_graph_computes_what_the_module_does_at_any_batch_size(family):
    model = networks.folded(family)
    images = torch.from_numpy(networks.pixels(32, count=3, seed=2))
    with torch.no_grad():
        expected, found = model.module(images), trace(model)(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_model_is_not_modified():
    model = networks.folded("v3-small")
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    for parameter in trace(model).parameters():
        parameter.data.zero_()
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_hard_sigmoid_becomes_a_clamped_convolution():
    torch.manual_seed(0)
    model = networks.model_of(Convolution(nn.Hardsigmoid()), 8)
    traced = trace(model)
    (op,) = find_fused_ops(traced)
    assert op.clamp == (0.0, 1.0)
    x = torch.randn(5, 3, 8, 8) * 10
    expected = model.module(x)
    assert {0.0, 1.0} <= set(expected.detach().unique().tolist())  # both ends are reached
    torch.testing.assert_close(traced(x), expected, rtol=0, atol=1e-6)


def test_a_hard_sigmoid_that_does_not_follow_an_unshared_convolution_is_refused():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return y * nn.functional.hardsigmoid(y)

    after_relu = Convolution(nn.Sequential(nn.ReLU(), nn.Hardsigmoid()))
    for module in (Shared(), after_relu):
        with pytest.raises(ExportError, match=r"aten\.hardsigmoid .* has no int8 form: it follows"):
            find_fused_ops(trace(networks.model_of(module, 8)))
