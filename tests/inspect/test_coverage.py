"""Int8 coverage, counted from artifacts of mobiledeploy and of other tools, and its gate."""

import math
from dataclasses import replace

import networks
import onnx
import pytest

from mobiledeploy.artifact.coverage import Coverage, FloatIsland, require_int8
from mobiledeploy.cli import main
from mobiledeploy.errors import GateError
from mobiledeploy.inspect.inspect_artifact import inspect_artifact
from mobiledeploy.models.summary import summarize

# The network of tests/small_artifacts.py: stem, depthwise, project at 16x16; classifier.
MACS = 8 * 27 * 256 + 8 * 9 * 256 + 8 * 8 * 256 + 8 * 10


@pytest.mark.parametrize("artifact", ["float_onnx", "float_pte", "portable_pte"])
def test_a_float_network_has_no_int8_coverage(artifact, request):
    coverage = inspect_artifact(request.getfixturevalue(artifact)).coverage
    # ONNX Runtime pads float convolutions to 16 channels; the network has 8.
    assert coverage.macs == MACS or (artifact == "float_onnx" and coverage.macs > MACS)
    assert (coverage.int8_macs, coverage.int8_elements) == (0, 0)
    assert sum(island.elements for island in coverage.float_islands) == coverage.elements > 0
    assert sum(island.macs for island in coverage.float_islands) == coverage.macs


@pytest.mark.ci
@pytest.mark.parametrize("artifact", ["int8_onnx", "int8_pte"])
def test_int8_networks_of_other_tools_are_counted(artifact, request):
    coverage = inspect_artifact(request.getfixturevalue(artifact)).coverage
    assert (coverage.macs, coverage.int8_macs) == (MACS, MACS)
    assert coverage.elements > 4 * 8 * 256  # stem, depthwise, project, sum, and the head
    assert coverage.int8_elements > 0.9 * coverage.elements


@pytest.mark.parametrize("format_", ["onnx", pytest.param("pte", marks=pytest.mark.ci)])
def test_v3_computes_entirely_in_int8(exported_to, format_):
    artifact = exported_to(format_, "v3-small", 64)
    coverage = artifact.coverage
    assert coverage == inspect_artifact(artifact.path).coverage
    assert (coverage.macs_share, coverage.elements_share) == (1.0, 1.0)
    assert coverage.float_islands == ()
    expected = summarize(networks.spec_of(networks.folded("v3-small", 64, short=True))).macs
    if format_ == "pte":  # the space-to-depth stem has six taps of twice the channels for nine
        outputs, taps, instead = 8 * 32 * 32, 9 * 3, 6 * 6
        assert coverage.macs == expected + outputs * (instead - taps)
    else:  # includes the padded channels, which are many at this width
        assert expected < coverage.macs < 3 * expected


ISLAND = """
<ir_version: 10, opset_import: ["": 20]>
island (float[batch,3,S,S] x) => (float[batch,4,S,S] y)
<float s = {0.02}, uint8 z = {128}, float[4] ws = {0.01, 0.02, 0.01, 0.02},
 int8[4,3,1,1] w = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
{
    q0 = QuantizeLinear(x, s, z)
    d0 = DequantizeLinear(q0, s, z)
    dw = DequantizeLinear<axis=0>(w, ws)
    c = Conv(d0, dw)
    q1 = QuantizeLinear(c, s, z)
    d1 = DequantizeLinear(q1, s, z)
    [the_island] t = Tanh(d1)
    q2 = QuantizeLinear(t, s, z)
    y = DequantizeLinear(q2, s, z)
}
"""


def with_an_island(path, size):
    onnx.save(onnx.parser.parse_model(ISLAND.replace("S", size)), path)
    return path


def test_a_float_operator_between_int8_operators_is_named(tmp_path):
    coverage = inspect_artifact(with_an_island(tmp_path / "island.onnx", "8")).coverage
    assert (coverage.macs, coverage.int8_macs) == (4 * 3 * 64, 4 * 3 * 64)
    assert (coverage.elements, coverage.int8_elements) == (2 * 4 * 64, 4 * 64)
    assert coverage.float_islands == (
        FloatIsland(name="the_island", operator="Tanh", elements=4 * 64, macs=0),
    )


def test_a_network_with_a_free_image_size_cannot_be_counted_and_fails(tmp_path):
    coverage = inspect_artifact(with_an_island(tmp_path / "island.onnx", "side")).coverage
    assert coverage is None
    with pytest.raises(GateError, match="could not be counted"):
        require_int8("island.onnx", coverage, 0.0)


HALF = Coverage(
    counted_in="a test",
    macs=100,
    int8_macs=100,
    elements=200,
    int8_elements=100,
    float_islands=(
        FloatIsland(name="small", operator="Add", elements=10, macs=0),
        FloatIsland(name="large", operator="Mul", elements=90, macs=0),
    ),
)


def test_the_gate_checks_both_shares_and_names_the_largest_operators():
    require_int8("a.onnx", HALF, 0.5)
    with pytest.raises(GateError, match=r"50.0% of its activations.*51.0%.*large \(Mul\), small"):
        require_int8("a.onnx", HALF, 0.51)
    with pytest.raises(GateError, match=r"90.0% of its multiply-accumulates"):
        require_int8("a.onnx", replace(HALF, int8_macs=90, int8_elements=200), 0.95)


def test_a_network_without_operators_fails():
    nothing = Coverage(
        counted_in="", macs=0, int8_macs=0, elements=0, int8_elements=0, float_islands=()
    )
    assert math.isclose(nothing.elements_share, 0)
    with pytest.raises(GateError):
        require_int8("a.onnx", nothing, 0.0)


@pytest.mark.parametrize(("least", "expected"), [("0.5", 0), ("0.51", 1)])
def test_inspect_has_the_gate(tmp_path, least, expected, capsys):
    path = with_an_island(tmp_path / "island.onnx", "8")
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", str(path), "--min-int8-coverage", least])
    assert (stopped.value.code or 0) == expected
    assert "the_island (Tanh): 256 activations" in capsys.readouterr().out
