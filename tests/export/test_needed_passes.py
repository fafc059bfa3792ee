"""Lowering without the passes that find nothing gives the same bytes."""

from contextlib import nullcontext

import networks
import pytest
from torch import nn
from torch.nn import functional as F

from mobiledeploy.utils.quiet import quietly

with quietly():
    from executorch.backends.xnnpack import xnnpack_preprocess

    from mobiledeploy.export import executorch
    from mobiledeploy.export.xnnpack_passes.needed_passes import needed_passes


@pytest.fixture
def passes(monkeypatch):
    """The names of the passes that ran."""
    ran = []
    manager = xnnpack_preprocess.XNNPACKPassManager

    class Recording(manager):
        def transform(self):
            ran.extend(each.__name__ for each in self.passes)
            return super().transform()

    monkeypatch.setattr(xnnpack_preprocess, "XNNPACKPassManager", Recording)
    return ran


def run_all_passes(monkeypatch):
    """Let ExecuTorch lower as it does on its own."""
    monkeypatch.setattr(executorch, "needed_passes", nullcontext)
    monkeypatch.setattr(executorch, "without_idle_decompositions", nullcontext)
    monkeypatch.setattr(executorch, "in_core_operators", lambda program: program)
    monkeypatch.delattr(executorch._Partitioner, "ops_to_not_decompose")


@pytest.mark.ci
@pytest.mark.parametrize("family", ["v2", "v3-small"])
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_bytes_are_those_of_all_passes(family, precision, passes, monkeypatch):
    make = networks.quantized if precision == "int8" else networks.folded
    model = make(family, short=True)
    few = executorch.encode_model(model)
    ran = list(passes)
    run_all_passes(monkeypatch)
    assert executorch.encode_model(model) == few
    everything = passes[len(ran) :]
    assert "ChannelsLastTaggedReshapePass" in ran
    assert len(ran) < len(everything) / 2


class Scaled(nn.Module):
    """Multiplies by a number, which becomes a tensor."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.conv(x) * 0.5 + 1.0


class Resized(nn.Module):
    """Has two views and an upsampling."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return F.interpolate(self.conv(x), scale_factor=2, mode="bilinear").flatten(2).flatten(1)


@pytest.mark.parametrize("module", [Scaled(), Resized(), nn.Hardtanh(-1, 1)])
def test_other_graphs_keep_their_bytes_too(module, monkeypatch):
    model = networks.model_of(module.eval(), 8)
    few = executorch.encode_model(model)
    run_all_passes(monkeypatch)
    assert executorch.encode_model(model) == few


@pytest.mark.parametrize(
    ("module", "needed"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), "FuseActivationPass"),
        (nn.PReLU(3), "PReLUReshapePass"),
    ],
)
def test_a_pass_that_finds_something_runs(module, needed, passes):
    executorch.encode_model(networks.model_of(module, 8))
    assert needed in passes
    assert "ConvertToSDPAPass" not in passes


def test_afterwards_executorch_has_its_own_passes():
    manager = xnnpack_preprocess.XNNPACKPassManager
    with needed_passes():
        assert xnnpack_preprocess.XNNPACKPassManager is not manager
    assert xnnpack_preprocess.XNNPACKPassManager is manager
