"""A recipe decides how layers are rounded and on how many images."""

from dataclasses import replace

import networks
import numpy as np
import pytest

from mobiledeploy.quantization import round_layers as round_layers_module
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.quantization.round_layers import round_layers
from mobiledeploy.stages import QuantRecipe

MINMAX = QuantRecipe(range_rule="minmax")


@pytest.mark.parametrize(
    ("rounding", "side", "count"),
    [("nearest", 32, 40), ("nearest", 224, 32), ("gptq", 224, 40)],
)
def test_rounding_to_nearest_takes_some_evenly_spaced_images(rounding, side, count, monkeypatch):
    model = networks.equalized("v2", short=True)
    plan = make_plan(model, networks.calibration(32), MINMAX)
    images = np.arange(40, dtype=np.float32)[:, None, None, None].repeat(side, axis=3)
    seen = []
    monkeypatch.setattr(
        round_layers_module,
        "round_with_bias_correction",
        lambda _plan, images, *_, **__: seen.append(images) or {},
    )
    round_layers(plan, replace(MINMAX, rounding=rounding), images)
    (taken,) = seen
    assert len(taken) == count
    assert np.diff(taken[:, 0, 0, 0]).max() <= 2
    assert taken[-1, 0, 0, 0] >= 38
