"""The chart of `sensitivity --plot`: one bar per layer, the largest gain on top."""

import re

from mobiledeploy.quantization.sensitivity import LayerSensitivity, SensitivityReport
from mobiledeploy.quantization.sensitivity_chart import sensitivity_chart


def layer(name, gain_db, kind="convolution"):
    return LayerSensitivity(
        name=name,
        kind=kind,
        only_sqnr_db=30.0,
        kept_sqnr_db=20.0 + gain_db,
        gain_db=gain_db,
        macs=1000,
        macs_share=0.25,
    )


def make_report(*layers):
    return SensitivityReport(
        network="net",
        int8_sqnr_db=20.0,
        source="photos",
        count=8,
        calibration_source="photos",
        layers=layers,
    )


def test_layers_are_sorted_by_gain_from_the_top():
    layers = (layer("a", 0.5), layer("b", 2.0, "depthwise"), layer("c", -0.25, "linear"))
    chart = sensitivity_chart(make_report(*layers))
    names = re.findall(r'y="([\d.]+)"[^>]*>([abc])</text>', chart)
    assert [name for _, name in sorted((float(y), name) for y, name in names)] == ["b", "a", "c"]
    assert "+2.00 dB, 25.0% of MACs" in chart
    assert "\N{MINUS SIGN}0.25 dB" in chart or "-0.25 dB" in chart
    assert "net: 20.0 dB with every layer in int8" in chart
    assert "b: 30.0 dB with it alone in int8, 22.00 dB with it alone in float" in chart
    for kind in ("convolution", "depthwise", "linear"):
        assert chart.count(f">{kind}</text>") == 1


def test_a_layer_without_a_gain_and_a_single_layer_have_charts():
    assert "+0.00 dB" in sensitivity_chart(make_report(layer("a", 0.0)))
