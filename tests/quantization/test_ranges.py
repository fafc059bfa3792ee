"""Ranges follow from what was observed, with room where clipping or a runtime asks for it."""

import networks
import pytest
import torch
from networks import FAMILIES
from torch import nn

from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.graph.observers import observe
from mobiledeploy.graph.shared_encodings import find_shared_encodings
from mobiledeploy.quantization.encodings import encode
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.quantization.plan_builder import PlanBuilder
from mobiledeploy.quantization.ranges import learnable_encodings, narrow, widest_ranges
from mobiledeploy.stages import QuantRecipe


@pytest.mark.parametrize(("count", "margin"), [(4, 2.5), (9, 2.0)])
def test_the_range_of_the_logits_leaves_more_room_the_fewer_images_were_seen(count, margin):
    traced = trace(networks.equalized("v2"))
    shared_encodings = find_shared_encodings(traced, find_fused_ops(traced))
    nodes = [node for shared in shared_encodings for node in shared.nodes]
    observed = observe(traced, nodes, networks.calibration(32, count))
    (logits,) = shared_encodings[-1].nodes
    low, high = widest_ranges(shared_encodings, observed)[shared_encodings[-1].name]
    assert low == pytest.approx(margin * observed[logits.name].minima.min())
    assert high == pytest.approx(margin * observed[logits.name].maxima.max())


def test_a_dead_output_keeps_a_width_that_xnnpack_accepts():
    first, last = nn.Conv2d(3, 2, 1), nn.Conv2d(2, 2, 1)
    with torch.no_grad():
        first.weight.fill_(100.0)
        first.bias.fill_(-10_000.0)  # the ReLU lets nothing pass
    model = networks.model_of(nn.Sequential(first, nn.ReLU(), last, nn.Flatten()))
    builder = PlanBuilder.of(model, networks.calibration(32))
    assert builder.widest[builder.shared_encodings[1].name] == (0.0, 0.0)
    plan = builder.build(builder.narrowed(1.0))
    first = plan.layers[0]
    output_scale = plan.encodings[first.output.name].scale
    requantization = plan.input_scale(first) * float(plan.scales[first.name].max()) / output_scale
    assert 64 < requantization < 256


def test_narrowing_extends_to_zero_and_keeps_the_least_width():
    ranges = {"a": (-1.0, 3.0), "b": (1.0, 2.0), "c": (0.0, 1e-9)}
    narrowed = narrow(ranges, dict.fromkeys(ranges, 0.5), {"c": 1.0})
    assert narrowed == {"a": (-0.5, 1.5), "b": (0.0, 1.0), "c": (0.0, pytest.approx(1.0))}


@pytest.mark.parametrize("family", FAMILIES)
def test_ranges_that_follow_from_others_are_not_learnable(family):
    model = networks.equalized(family, short=family != "v3-large")
    plan = make_plan(model, networks.calibration(32), QuantRecipe(range_rule="minmax"))
    learnable = learnable_encodings(plan.ops, plan.shared_encodings)
    assert learnable
    assert not {plan.shared_encodings[0].name, plan.shared_encodings[-1].name} & learnable
    name_of = {node: shared.name for shared in plan.shared_encodings for node in shared.nodes}
    for op in plan.ops:
        if op.kind in ("hardswish", "multiply", "pool"):
            assert name_of[op.output] not in learnable
        if op.kind == "hardswish":
            assert name_of[op.activations[0]] not in learnable


def test_the_least_width_gives_the_scale_that_it_stands_for():
    (_, (low, high)), *_ = narrow({"a": (0.0, 1e-9)}, {"a": 1.0}, {"a": 2.55}).items()
    assert encode(low, high).scale == pytest.approx(0.01)
