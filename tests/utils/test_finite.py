"""Numbers without a finite float, integers included."""

import math

import pytest

from mobiledeploy.data.preprocess import check_preprocessing
from mobiledeploy.errors import UsageError
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec
from mobiledeploy.models.validate import validate
from mobiledeploy.network import Preprocessing
from mobiledeploy.utils.finite import is_finite

HUGE = 10**400


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, HUGE, -HUGE])
def test_these_have_no_finite_float(value):
    assert not is_finite(value)


@pytest.mark.parametrize("value", [0, -1, 1.7e308, 10**308])
def test_these_have_one(value):
    assert is_finite(value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("width", {"width": HUGE}),
        ("dropout", {"dropout": HUGE}),
        ("norm_eps", {"architecture": ArchitectureOptions(norm_eps=HUGE)}),
    ],
)
def test_a_huge_integer_in_a_configuration_is_a_usage_error(name, options):
    with pytest.raises(UsageError, match=name):
        validate(ModelSpec(family="v2", **options))


def test_a_huge_mean_is_a_usage_error():
    with pytest.raises(UsageError, match="mean"):
        check_preprocessing(Preprocessing(mean=(HUGE, 0.5, 0.5)), channels=3)
