"""The margin of a network is that of the layer whose results come nearest to a tie."""

from dataclasses import replace

import networks
import numpy as np
import pytest

from mobiledeploy.errors import ExportError
from mobiledeploy.network import Preprocessing
from mobiledeploy.quantization.encodings import tie_distance
from mobiledeploy.quantization.margin import margin, smallest_margin
from mobiledeploy.quantization.plan_builder import PlanBuilder
from mobiledeploy.quantization.tie_free import float32_error
from mobiledeploy.stages import Encoding


@pytest.fixture(scope="module", params=[("v1", 32), ("v2", 32), ("v3-small", 64)])
def plan(request):
    family, resolution = request.param
    model = networks.equalized(family, resolution, short=True)
    builder = PlanBuilder.of(model, networks.calibration(resolution))
    return builder.build(builder.narrowed(1.0))


def test_every_margin_exceeds_the_error_of_float32(plan):
    margins = {op.name: margin(plan, op) for op in plan.ops}
    assert min(margins.values()) > float32_error(128)
    assert max(margins.values()) <= 0.5
    smallest = smallest_margin(plan, Preprocessing())
    assert smallest.steps <= min(margins.values())
    assert smallest.layer in {"input", *(op.layer for op in plan.ops)}


def test_the_margin_of_a_convolution_is_the_distance_of_its_nearest_sum(plan):
    op = next(op for op in plan.ops if op.kind == "convolution")
    output = plan.encodings[op.output.name].scale
    ratios = plan.scales[op.name].numpy().astype(float) * plan.input_scale(op) / output
    sums = np.arange(-20_000, 20_001)
    nearest = min(tie_distance(sums * ratio) for ratio in ratios)
    assert margin(plan, op) == pytest.approx(nearest, rel=0.05)


def test_a_layer_with_ties_is_refused(plan):
    op = next(op for op in plan.ops if op.has_weight)
    ratio = plan.input_scale(op) / plan.encodings[op.output.name].scale
    tied = plan.scales[op.name] * 0 + 0.5 / ratio
    spoiled = replace(plan, scales={**plan.scales, op.name: tied})
    with pytest.raises(ExportError, match=f"round {op.layer} differently"):
        smallest_margin(spoiled, Preprocessing())


def test_an_input_with_ties_is_refused(plan):
    name = plan.shared_encodings[0].nodes[0].name
    step = Encoding(scale=float(np.float32(2 / 255)), zero_point=0)
    spoiled = replace(plan, encodings={**plan.encodings, name: step})
    gray = Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    with pytest.raises(ExportError, match="round input differently"):
        smallest_margin(spoiled, gray)
