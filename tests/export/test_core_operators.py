"""A program in core operators computes what it computed before, and nothing is decomposed."""

import networks
import pytest
import torch
from torch import nn

from mobiledeploy.utils.quiet import quietly

with quietly():
    from mobiledeploy.export.core_operators import in_core_operators, without_idle_decompositions
    from mobiledeploy.export.program import program_of

aten = torch.ops.aten
CORE = {aten.convolution.default, aten.mean.dim, aten.view.default}


def operators(program):
    return {node.target for node in program.graph.nodes if node.op == "call_function"}


@pytest.mark.parametrize("make", [networks.quantized, networks.folded])
def test_the_logits_stay_the_same_bits(make):
    program = program_of(make("v3-small", short=True))
    before = operators(program)
    core = in_core_operators(program)
    image = torch.rand(program.example_inputs[0][0].shape)
    assert torch.equal(program.module()(image), core.module()(image))
    assert operators(core) >= CORE
    assert operators(program) == before


def test_pooling_to_several_pixels_stays():
    module = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2, groups=1), nn.AdaptiveAvgPool2d(2))
    program = torch.export.export(module.eval(), (torch.zeros(1, 3, 16, 16),))
    assert aten.adaptive_avg_pool2d.default in operators(in_core_operators(program))


class Shuffled(nn.Module):
    """Swaps the halves of the channels; `reshape` may or may not copy."""

    def forward(self, x):
        return x.reshape(1, 2, 2, 8, 8).transpose(1, 2).reshape(1, 4, 8, 8)


def test_a_program_with_an_operator_that_may_return_a_view_is_decomposed():
    with quietly():
        program = torch.export.export(Shuffled(), (torch.zeros(1, 4, 8, 8),))
        assert aten.reshape.default in operators(program)
        with without_idle_decompositions():
            assert aten.reshape.default not in operators(program.run_decompositions({}))


class InPlace(nn.Module):
    def forward(self, x):
        return (x * 2).add_(1)


def test_a_program_that_changes_tensors_is_decomposed():
    table = {aten.add.Tensor: lambda a, b: a - -b}
    with quietly():
        program = torch.export.export(InPlace(), (torch.zeros(1, 3),))
        functional = program.run_decompositions({})
        assert functional.run_decompositions({}) is not functional
        with without_idle_decompositions():
            assert program.run_decompositions({}) is not program
            assert functional.run_decompositions({}) is functional
            assert functional.run_decompositions(table) is not functional
