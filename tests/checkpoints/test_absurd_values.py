"""Finite values that no training leaves are refused by the layer's name."""

import pytest
import torch

from mobiledeploy.errors import WeightsError
from mobiledeploy.models.build import create
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.pipeline.build import build

SPEC = ModelSpec(family="v2", width=0.25, resolution=32, num_classes=10, weights="random")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("features.3.conv.0.1.weight", -2e37),
        ("features.3.conv.0.0.weight", 1e19),
        ("features.3.conv.0.1.running_var", 1e38),
        ("classifier.1.bias", 1e13),
    ],
)
def test_an_absurd_value_is_refused_by_its_name(tmp_path, name, value):
    state = create(SPEC).state_dict()
    state[name].view(-1)[0] = value
    torch.save(state, tmp_path / "absurd.pth")
    with pytest.raises(WeightsError, match=f"{name} has a value of .*; expected at most 1e"):
        build("v2", weights=str(tmp_path / "absurd.pth"), resolution=32)
