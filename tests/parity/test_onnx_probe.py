"""The probe: a graph cut at its codes, whose layers compute what the integer reference does."""

import networks
import numpy as np
import onnx
import pytest

from mobiledeploy.errors import ArtifactError, RuntimeFailedError
from mobiledeploy.parity.onnx_probe import OnnxProbe
from mobiledeploy.quantization.integer_reference import IntegerReference

FAMILIES = pytest.mark.parametrize(
    ("family", "resolution"), [("v1", 32), ("v2", 32), ("v3-small", 64)]
)


def expected_codes(family, resolution, images):
    reference = IntegerReference(networks.quantized(family, resolution, short=True))
    return reference, reference.layers(images)


@FAMILIES
@pytest.mark.parametrize("optimize", [True, False])
def test_every_layer_given_the_references_codes_gives_the_references_codes(
    exported_to, family, resolution, optimize
):
    images = networks.pixels(resolution, count=3, seed=1)
    reference, expected = expected_codes(family, resolution, images)
    path = exported_to("onnx", family, resolution).path
    probe = OnnxProbe(path, list(reference.operators), optimize=optimize)
    assert len(probe.names) == len(expected)
    found = probe.run(images, {name: layer.codes for name, layer in expected.items()})
    for name, layer in expected.items():
        assert found[name].dtype == np.int8
        np.testing.assert_array_equal(found[name], layer.codes, name)


def test_a_difference_stays_in_its_layer(exported_to):
    images = networks.pixels(32, count=2, seed=1)
    reference, expected = expected_codes("v2", 32, images)
    path = exported_to("onnx", "v2").path
    probe = OnnxProbe(path, list(reference.operators), optimize=True)
    given = {name: layer.codes for name, layer in expected.items()}
    third = probe.names[2]
    given[third] = -given[third]
    found = probe.run(images, given)
    wrong = [name for name in probe.names if np.any(found[name] != expected[name].codes)]
    # only what reads the third: not the third itself, and not what comes behind its reader
    assert wrong == [probe.names[3]]


def test_a_graph_without_any_of_the_tensors_is_refused(exported_to):
    with pytest.raises(ArtifactError, match="none of the network's 1 code tensors"):
        OnnxProbe(exported_to("onnx", "v2").path, ["nowhere"], optimize=True)


def test_codes_of_another_network_are_refused(exported_to):
    images = networks.pixels(32, count=1)
    reference, expected = expected_codes("v2", 32, images)
    probe = OnnxProbe(exported_to("onnx", "v2").path, list(reference.operators), optimize=True)
    codes = {name: layer.codes.repeat(3, axis=1) for name, layer in expected.items()}
    with pytest.raises(RuntimeFailedError, match="does not take the network's codes"):
        probe.run(images, codes)


def test_the_file_itself_is_left_alone(exported_to):
    path = exported_to("onnx", "v2").path
    before = path.read_bytes()
    reference, _ = expected_codes("v2", 32, networks.pixels(32, count=1))
    OnnxProbe(path, list(reference.operators), optimize=False)
    assert path.read_bytes() == before
    assert len(onnx.load(path).graph.input) == 1


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "text.onnx"
    path.write_text("no model")
    with pytest.raises(ArtifactError, match="not an ONNX model"):
        OnnxProbe(path, ["x"], optimize=True)
