"""The chart of quantization noise: every layer drawn, the worst ones named."""

import math
import re

import pytest

from mobiledeploy.parity.report.layer_chart import _spread, layer_chart, worst_layers
from mobiledeploy.parity.types import LayerNoise


def layer(name, drop, sqnr=20.0, own=30.0):
    return LayerNoise(name=name, sqnr_db=sqnr, own_sqnr_db=own, sqnr_drop_db=drop)


MANY = [layer(f"features.{i}.conv conv2d_{i}", float(i % 17)) for i in range(60)]


def charts(layers):
    return re.findall(r"<svg.*?</svg>", layer_chart(layers), re.DOTALL)


def test_the_worst_layers_are_named_in_both_charts():
    names = [layer.name for layer in worst_layers(MANY, 6)]
    assert names[0] == "features.16.conv conv2d_16"
    for chart in charts(MANY):
        for rank, name in enumerate(names, 1):
            assert chart.count(f">{rank}  {name}</text>") == 1
            assert chart.count(f">{rank}</text>") >= 1
        assert ">16.0 dB</text>" in chart


def test_every_layer_has_a_bar_with_its_numbers():
    for chart in charts(MANY):
        assert chart.count("<title>") == len(MANY)
        assert (
            "features.5.conv conv2d_5: 20.0 dB behind it, 30.0 dB of its own, drop 5.0 dB" in chart
        )


def test_axes_are_labelled():
    for chart in charts(MANY):
        for text in ("SQNR, dB", "layer, from the input to the logits"):
            assert f">{text}</text>" in chart


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_values_that_are_not_finite_are_drawn_and_nan_is_never_the_worst(value):
    layers = [layer("a", 1.0), layer("b", value, sqnr=value, own=value)]
    assert len(charts(layers)) == 2
    if math.isnan(value):
        assert [each.name for each in worst_layers(layers, 6)] == ["a"]


def test_one_layer_and_no_noise_have_charts():
    assert len(charts([layer("a", 0.0, sqnr=0.0, own=0.0)])) == 2


@pytest.mark.parametrize(
    ("places", "expected"),
    [([], []), ([5], [5]), ([1, 2], [1, 3]), ([9, 10], [8, 10]), ([4, 5, 10], [4, 6, 10])],
)
def test_numbers_are_moved_apart_and_stay_in_the_chart(places, expected):
    assert _spread(places, 2, 10) == expected
