"""Which units compute in float when some layers are kept there."""

import networks
import pytest

from mobiledeploy.graph.aten_graph import find_fused_ops, trace
from mobiledeploy.quantization.float_layers import float_ops, layer_name


def floating(kept, family="v2", **options):
    """Return the modules or operators of the units that compute in float."""
    ops = find_fused_ops(trace(networks.folded(family, short=True, **options)))
    names = float_ops(ops, kept)
    return {
        layer_name(u) if u.has_weight else u.operator.name for u in ops if u.operator.name in names
    }


def test_nothing_is_float_unless_a_layer_is_kept():
    assert floating(()) == set()
    assert floating((), padding="same") == set()


def test_a_layer_is_called_by_its_module():
    ops = find_fused_ops(trace(networks.folded("v2", short=True)))
    names = [layer_name(u) for u in ops if u.has_weight]
    assert names[0] == "features.0.0"
    assert names[-1] == "classifier.1"
    assert len(set(names)) == len(names)


def test_an_addition_is_float_where_both_of_its_operands_are():
    project, residual = "features.2.conv.2", "features.3.conv.2"
    assert floating({residual}) == {residual}
    assert floating({project}) == {project}
    assert floating({project, residual}) == {project, residual, "add"}


def test_the_pool_follows_the_layer_before_it_and_the_reshape_those_on_both_sides():
    last, classifier = "features.4.0", "classifier.1"
    assert floating({last}) == {last, "adaptive_avg_pool2d"}
    assert floating({classifier}) == {classifier}
    assert floating({last, classifier}) == {last, classifier, "adaptive_avg_pool2d", "flatten"}


def test_the_image_is_padded_in_float_only_where_the_layer_behind_is_kept():
    assert "pad" not in floating({"classifier.1"}, padding="same")
    assert "pad" in floating({"features.0.0"}, padding="same")


def test_a_hardswish_follows_its_convolution():
    assert floating({"features.2.block.0.0"}, "v3-small") == {
        "features.2.block.0.0",
        "hardswish_1",
    }


@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
def test_with_every_layer_kept_everything_is_float(family):
    ops = find_fused_ops(trace(networks.folded(family, short=True)))
    every = {layer_name(u) for u in ops if u.has_weight}
    assert float_ops(ops, every) == {u.operator.name for u in ops}
