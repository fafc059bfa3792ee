"""Which operators compute in float when some layers are kept in float."""

import networks
import pytest

from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.quantization.float_layers import find_float_ops


def float_names(kept, family="v2", **options):
    """Return the layers, and the names of other operators, that compute in float."""
    ops = find_fused_ops(trace(networks.folded(family, short=True, **options)))
    names = find_float_ops(ops, kept)
    return {op.layer if op.has_weight else op.name for op in ops if op.name in names}


def test_nothing_is_float_unless_a_layer_is_kept():
    assert float_names(()) == set()
    assert float_names((), padding="same") == set()


def test_an_addition_is_float_if_both_of_its_operands_are():
    project, residual = "features.2.conv.2", "features.3.conv.2"
    assert float_names({residual}) == {residual}
    assert float_names({project}) == {project}
    assert float_names({project, residual}) == {project, residual, "add"}


def test_a_pool_follows_the_layer_before_it_and_a_reshape_those_on_both_sides():
    last, classifier = "features.4.0", "classifier.1"
    assert float_names({last}) == {last, "adaptive_avg_pool2d"}
    assert float_names({classifier}) == {classifier}
    assert float_names({last, classifier}) == {last, classifier, "adaptive_avg_pool2d", "flatten"}


def test_the_image_is_padded_in_float_only_if_the_layer_behind_is_float():
    assert "pad" not in float_names({"classifier.1"}, padding="same")
    assert "pad" in float_names({"features.0.0"}, padding="same")


def test_a_hardswish_follows_its_convolution():
    assert float_names({"features.2.block.0.0"}, "v3-small") == {
        "features.2.block.0.0",
        "hardswish_1",
    }


@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
def test_with_every_layer_kept_everything_is_float(family):
    ops = find_fused_ops(trace(networks.folded(family, short=True)))
    layers = {op.layer for op in ops if op.has_weight}
    assert find_float_ops(ops, layers) == {op.name for op in ops}
