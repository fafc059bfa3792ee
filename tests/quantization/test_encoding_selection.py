"""Of several encodings, the one with the least loss on hold-out images is taken."""

from dataclasses import replace

import networks
import pytest
import torch

from mobiledeploy.graph.fused_ops import weight_and_bias
from mobiledeploy.quantization.encoding_selection import corrected_weights, select_encodings
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.stages import QuantRecipe

IMAGES = networks.pixels(32)


def plan_of(family):
    model = networks.equalized(family, short=True)
    return make_plan(model, networks.calibration(32), QuantRecipe())


def test_the_better_of_two_candidates_is_found_in_either_order():
    good = plan_of("v2")
    coarse = {name: replace(e, scale=e.scale / 3) for name, e in good.encodings.items()}
    bad = replace(good, encodings=coarse)
    assert select_encodings([good, bad], IMAGES, IMAGES) is good
    assert select_encodings([bad, good], IMAGES, IMAGES) is good


@pytest.mark.parametrize(("family", "corrected"), [("v2", False), ("v3-small", True)])
def test_biases_are_corrected_only_if_there_are_multiplications(family, corrected):
    plan = plan_of(family)
    weights = corrected_weights(plan, IMAGES)
    for op in plan.layers:
        weight, bias = weight_and_bias(plan.traced, op)
        assert torch.equal(weights[op.name].weight, weight)
        assert torch.equal(weights[op.name].bias, bias) is not corrected
