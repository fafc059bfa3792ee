"""The recipe decides how channels are rescaled before quantization."""

import networks
import pytest

from mobiledeploy.pipeline import stages as stages_module
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.stages import run_stages
from mobiledeploy.quantization.learned_equalization import learn_equalization
from mobiledeploy.stages import QuantRecipe


def small_model():
    return build("v1", weights="random", width=0.25, resolution=32, num_classes=10)


@pytest.mark.ci
@pytest.mark.parametrize("equalization", ["none", "cross-layer", "learned"])
def test_a_network_gets_the_equalization_that_its_recipe_asks_for(equalization):
    recipe = QuantRecipe(equalization=equalization, range_rule="minmax", rounding="nearest")
    stages = run_stages(small_model(), networks.calibration(32), recipe)
    assert stages.deployed.recipe == recipe
    assert stages.equalized.equalization == equalization


@pytest.mark.ci
@pytest.mark.parametrize(("rounding", "thorough"), [("gptq", False), ("learned", True)])
def test_learned_rounding_learns_equalization_thoroughly(rounding, thorough, monkeypatch):
    options = []
    monkeypatch.setattr(
        stages_module,
        "learn_equalization",
        lambda *args, **kwargs: options.append(kwargs) or learn_equalization(*args),
    )
    recipe = QuantRecipe(range_rule="minmax", rounding=rounding)
    run_stages(small_model(), networks.calibration(32, 12), recipe)
    assert options == [{"thorough": thorough}]
