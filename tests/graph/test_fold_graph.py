"""BatchNorm folding in the graph of any module."""

import networks
import own_networks
import pytest
import torch
from torch import nn

from mobiledeploy.errors import ExportError, UsageError
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fold_graph import fold_graph
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.quantization.equalize import equalize

IMAGES = torch.from_numpy(networks.pixels(32, count=3))


def folded(module):
    randomize_batch_norm(module.eval(), seed=1)
    model = networks.model_of(module)
    result = fold_graph(model)
    assert not result.module.graph.find_nodes(
        op="call_function", target=torch.ops.aten.batch_norm.default
    )
    with torch.no_grad():
        expected = module(IMAGES)
        assert float(expected.std(0).min()) > 0
        torch.testing.assert_close(result.module(IMAGES), expected, rtol=1e-4, atol=1e-5)
    return result


def test_every_place_of_a_batch_norm_is_folded():
    result = folded(own_networks.Tutorial())
    assert result.folded_layers == ("stem.0", "block.0", "head.0")
    kinds = [op.kind for op in find_fused_ops(trace(result))]
    assert "clamp" not in kinds
    assert kinds.count("hardswish") == 2


def test_a_convolution_that_runs_twice_is_folded_into_copies():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3)
            self.conv = nn.Conv2d(8, 8, 1)
            self.one, self.two = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

        def forward(self, x):
            x = self.one(self.conv(self.stem(x)))
            return self.two(self.conv(x)).mean([2, 3])

    assert folded(Twice()).folded_layers == ("conv", "conv")


def test_a_head_of_several_levels_is_rescaled_once_for_each():
    """As in detectors, one convolution reads images of several sizes."""

    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.stems = nn.ModuleList(nn.Conv2d(3, 8, 3, 2**n) for n in (1, 2))
            self.norm, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

        def forward(self, x):
            levels = [torch.relu(self.norm(stem(x))) for stem in self.stems]
            return torch.cat([self.head(level).flatten(1) for level in levels], 1)

    result = folded(Shared())
    weights = [
        node.args[1].target
        for node in result.module.graph.find_nodes(
            op="call_function", target=torch.ops.aten.conv2d.default
        )
    ]
    assert len(set(weights)) == len(weights) == 4
    with torch.no_grad():
        rescaled = equalize(result, networks.calibration(32)).module(IMAGES)
        torch.testing.assert_close(rescaled, result.module(IMAGES), rtol=1e-3, atol=1e-4)


def test_a_norm_with_an_activation_of_its_own_keeps_it():
    class NormAct(nn.BatchNorm2d):
        def forward(self, x):
            return torch.relu(super().forward(x))

    result = folded(nn.Sequential(nn.Conv2d(3, 8, 3), NormAct(8), nn.AvgPool2d(30), nn.Flatten()))
    assert result.module.graph.find_nodes(op="call_function", target=torch.ops.aten.relu.default)


def test_a_norm_without_statistics_is_refused():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.Flatten()
    )
    with pytest.raises(UsageError, match="has no running statistics"):
        fold_graph(networks.model_of(module))


def test_an_unknown_operator_is_refused_with_module_and_line():
    model = fold_graph(networks.model_of(own_networks.Sine()))
    with pytest.raises(ExportError) as refused:
        find_fused_ops(trace(model))
    assert "The operator aten.sin in module odd (" in refused.value.message
    assert "own_networks.py, line" in refused.value.message
    assert "return torch.sin(x)  # the line that the error names" in refused.value.message
