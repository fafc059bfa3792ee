"""Manifests are complete and consistent, or refused with exit code 3."""

import json
from dataclasses import replace

import networks
import pytest

from mobiledeploy.artifact.artifact import Artifact, Format
from mobiledeploy.artifact.manifest import manifest_path, read_manifest, write_manifest
from mobiledeploy.errors import ArtifactError
from mobiledeploy.stages import QuantRecipe
from mobiledeploy.utils.files import sha256_of

REPORT = {"passed": True, "rungs": [{"name": "onnx", "passed": True}]}
COVERAGE = {
    "counted_in": "a test",
    "macs": 10,
    "int8_macs": 10,
    "macs_share": 1.0,
    "activation_elements": 10,
    "int8_activation_elements": 10,
    "activation_elements_share": 1.0,
    "float_islands": [],
}


@pytest.fixture
def artifact(tmp_path):
    """The record of an artifact; a manifest does not depend on the content of the file."""
    path = tmp_path / "a.onnx"
    path.write_bytes(b"the network")
    model = networks.quantized("v2", short=True)
    return Artifact(
        format=Format.ONNX,
        path=path,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        precision="int8",
        encodings_digest=model.encodings_digest,
        tool_versions={"torch": "2"},
    )


@pytest.fixture
def manifest(artifact):
    """The path of the artifact's manifest."""
    return write_manifest(artifact, networks.quantized("v2", short=True), REPORT)


@pytest.fixture
def edit(manifest):
    """Return a function that replaces fields of the manifest by their paths."""

    def change(fields):
        document = json.loads(manifest.read_text())
        document["int8_coverage"] = dict(COVERAGE)
        for path, value in fields.items():
            *parents, name = path.split(".")
            node = document
            for parent in parents:
                node = node[parent]
            node[name] = value
        manifest.write_text(json.dumps(document))

    return change


def refusal(artifact, message):
    """Return the error of reading the manifest, which has to match `message`."""
    with pytest.raises(ArtifactError, match=message) as caught:
        read_manifest(artifact.path)
    assert caught.value.exit_code == 3
    assert caught.value.remedy
    return caught.value


def test_everything_needed_to_rebuild_the_network_is_read_back(artifact, manifest):
    model = networks.quantized("v2", short=True)
    found = read_manifest(artifact.path)
    assert found.spec == networks.spec_of(model)
    assert found.info == model.info
    assert found.preprocessing == model.info.preprocessing
    assert found.recipe == model.recipe == QuantRecipe(equalization="cross-layer")
    assert found.encodings_sha256 == model.encodings_digest
    assert (found.calibration.source, found.calibration.count) == ("pixels", 8)
    assert found.calibration.sha256 == "c0ffee"
    assert found.labels == model.info.labels
    assert (found.path, found.folder) == (manifest, manifest.parent)
    assert found.artifact_path == artifact.path
    assert found.artifact.sha256 == artifact.sha256
    assert found.parity.passed is True
    assert {name: e.encoding for name, e in found.encodings.items()} == dict(model.encodings)
    assert {name: e.layer for name, e in found.encodings.items()} == dict(model.layers)
    assert manifest.name == "a.onnx.json"


def test_reading_does_not_change_the_document(artifact, manifest):
    assert read_manifest(artifact.path).to_json() == json.loads(manifest.read_text())


def test_a_recipe_other_than_the_default_is_read_back(artifact):
    recipe = QuantRecipe(range_rule="minmax")
    write_manifest(artifact, replace(networks.quantized("v2", short=True), recipe=recipe), None)
    found = read_manifest(artifact.path)
    assert found.recipe == recipe
    assert found.parity is None


def test_the_manifest_of_a_float_network_has_no_recipe(artifact):
    write_manifest(replace(artifact, precision="fp32"), networks.folded("v2", short=True), None)
    document = json.loads(manifest_path(artifact.path).read_text())
    assert not {"recipe", "calibration", "encodings", "encodings_sha256"} & document.keys()
    assert read_manifest(artifact.path).recipe is None


def test_paths_are_also_recorded_relative_to_the_manifest(tmp_path, artifact, monkeypatch):
    """So that a project can be moved as a whole."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "exports" / "a.onnx"
    model = networks.quantized("v2", short=True)
    model = networks.described(
        model,
        spec=replace(networks.spec_of(model), weights="own.pth"),
        provenance=replace(model.info.provenance, source="file"),
    )
    model = replace(model, calibration_source=str(tmp_path / "photos"))
    path.parent.mkdir()
    document = json.loads(write_manifest(replace(artifact, path=path), model, None).read_text())
    assert document["calibration"]["from_manifest"] == "../photos"
    assert document["weights"]["from_manifest"] == "../own.pth"


def test_bundled_images_and_random_weights_have_no_path(artifact):
    model = replace(networks.quantized("v2", short=True), calibration_source="embedded")
    document = json.loads(write_manifest(artifact, model, None).read_text())
    assert "from_manifest" not in document["calibration"]
    assert "from_manifest" not in document["weights"]


def test_the_same_network_gives_the_same_manifest(artifact, manifest):
    first = manifest.read_bytes()
    write_manifest(artifact, networks.quantized("v2", short=True), REPORT)
    assert manifest.read_bytes() == first


@pytest.mark.usefixtures("manifest")
def test_an_artifact_of_another_export_is_refused(artifact):
    artifact.path.write_bytes(b"another network")
    error = refusal(artifact, "not the file that its manifest describes")
    assert artifact.sha256[:12] in str(error)


@pytest.mark.parametrize("digest", ["", "c0ffee"])
def test_a_manifest_with_another_digest_is_refused(artifact, edit, digest):
    edit({"artifact.sha256": digest})
    refusal(artifact, "not the file that its manifest describes")


def test_a_missing_manifest_is_named(artifact):
    refusal(artifact, r"manifest .*a\.onnx\.json is missing")


@pytest.mark.usefixtures("manifest")
def test_a_missing_artifact_is_named(artifact):
    artifact.path.unlink()
    refusal(artifact, r"no file .*a\.onnx")


def test_a_folder_in_place_of_the_manifest_is_refused(artifact):
    manifest_path(artifact.path).mkdir()
    refusal(artifact, "is missing")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b"null", "it is not a JSON object"),
        (b'"schema"', "it is not a JSON object"),
        (b"{}", "`schema` is missing"),
        (b"\xff\xfe\x00", "can't decode byte 0xff"),
        (b'{"schema": 1}', "`artifact` is missing"),
        (b'{"schema": 2}', "`artifact` is missing"),
        (100_000 * b"[", "it is not JSON"),
    ],
)
def test_a_damaged_manifest_is_refused(artifact, content, problem):
    manifest_path(artifact.path).write_bytes(content)
    assert problem in str(refusal(artifact, "damaged"))


@pytest.mark.parametrize("schema", [0, 3, "1", None])
def test_an_unknown_schema_is_refused(artifact, edit, schema):
    edit({"schema": schema})
    refusal(artifact, "has schema .*; expected 2")


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("artifact", {}, "`artifact.file` is missing"),
        ("artifact", None, "`artifact` is null, expected an object"),
        ("artifact.file", 3, "`artifact.file` is 3, expected text"),
        ("artifact.sha256", None, "`artifact.sha256` is null, expected text"),
        ("artifact.size_bytes", "10 MB", '`artifact.size_bytes` is "10 MB", expected a whole'),
        ("artifact.format", "pte", '`artifact.format` is "pte", but the artifact is a.onnx'),
        ("artifact.format", "zip", "\"zip\", expected 'pte', 'onnx' or 'tflite'"),
        ("spec", [], "`spec` is [], expected an object"),
        ("spec", None, "`spec` is null, expected an object"),
        ("spec", {}, "`spec.family` is missing"),
        ("spec", {"family": "v2", "colour": "red"}, "`spec.colour` is not a known field"),
        ("spec.family", True, "`spec.family` is true, expected 'v1', 'v2'"),
        ("spec.width", None, "`spec.width` is null, expected a number"),
        ("spec.width", True, "`spec.width` is true, expected a number"),
        ("spec.width", 0, "`spec.width` is 0, expected a number above 0"),
        ("spec.resolution", "32", '`spec.resolution` is "32", expected a whole number'),
        ("spec.resolution", 0, "`spec.resolution` is 0, expected a number above 0"),
        ("spec.resolution", 8.5, "`spec.resolution` is 8.5, expected a whole number"),
        ("spec.architecture.rows", [[1, None]], "`spec.architecture.rows.0.1` is null, expected"),
        ("precision", None, "`precision` is null, expected 'fp32' or 'int8'"),
        ("precision", "fp32", '`precision` is "fp32", but `calibration` is present'),
        ("weights", [], "`weights` is [], expected an object"),
        ("weights.sha256", 3, "`weights.sha256` is 3, expected text"),
        ("weights.source", "disk", "`weights.source` is \"disk\", expected 'imagenet', 'random'"),
        ("preprocessing", None, "`preprocessing` is null, expected an object"),
        ("preprocessing.mean", "0.5", '`preprocessing.mean` is "0.5", expected a list'),
        ("preprocessing.mean", [0.5], "`preprocessing.mean` has 1 numbers, expected 3"),
        ("preprocessing.std", [0.5, float("nan"), 0.5], "`preprocessing.std.1` is NaN, expected a"),
        ("preprocessing.std", [0.5, 0, 0.5], "`preprocessing.std.1` is 0, expected a number above"),
        ("preprocessing.crop_pct", None, "`preprocessing.crop_pct` is null, expected a number"),
        ("preprocessing.crop_pct", 0, "`preprocessing.crop_pct` is 0, expected a number above 0"),
        ("preprocessing.interpolation", "x", '`preprocessing.interpolation` is "x", expected \'bi'),
        ("labels", None, "`labels` is null, expected a list"),
        ("labels", ["a"], "`labels` has 1 names, expected 10 or none"),
        ("labels", ["tench", 3], "`labels.1` is 3, expected text"),
        ("tool_versions.torch", 2, "`tool_versions.torch` is 2, expected text"),
        ("recipe", "minmax", '`recipe` is "minmax", expected an object'),
        ("recipe", None, "`recipe` is missing"),
        ("recipe", {"speed": 3}, "`recipe.speed` is not a known field"),
        ("recipe.factors", "even", "`recipe.factors` is not a known field"),
        ("recipe.rounding", "magic", "`recipe.rounding` is \"magic\", expected 'nearest', 'gptq'"),
        ("recipe.rounding", "cancelling", "expected 'nearest', 'gptq' or 'learned'"),
        ("recipe.float_layers", "a.b", '`recipe.float_layers` is "a.b", expected a list'),
        ("recipe.float_layers", [3], "`recipe.float_layers.0` is 3, expected text"),
        ("calibration", {"source": "pixels", "count": 8}, "`calibration.sha256` is missing"),
        ("calibration.source", None, "`calibration.source` is null, expected text"),
        ("calibration.count", 8.5, "`calibration.count` is 8.5, expected a whole number"),
        ("calibration.count", 0, "`calibration.count` is 0, expected a number above 0"),
        ("encodings", None, "`encodings` is null, expected an object"),
        ("encodings.x.scale", "small", '`encodings.x.scale` is "small", expected a number'),
        ("encodings.x.scale", -1.0, "`encodings.x.scale` is -1.0, expected a number above 0"),
        ("encodings.x.zero_point", None, "`encodings.x.zero_point` is null, expected a whole"),
        ("int8_coverage", 1.0, "`int8_coverage` is 1.0, expected an object"),
        ("int8_coverage.macs_share", "all", '`int8_coverage.macs_share` is "all", expected a numb'),
        ("parity", {}, "`parity.passed` is missing"),
        ("comment", "mine", "`comment` is not a known field"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_found_and_expected(
    artifact, edit, field, value, problem
):
    edit({field: value})
    message = str(refusal(artifact, "damaged"))
    assert problem in message
    assert "Input should" not in message


@pytest.mark.parametrize("name", ["recipe", "calibration", "encodings", "encodings_sha256"])
def test_an_int8_manifest_needs_every_part_of_its_quantization(artifact, manifest, name):
    document = json.loads(manifest.read_text())
    del document[name]
    manifest.write_text(json.dumps(document))
    assert f"`{name}` is missing" in str(refusal(artifact, "damaged"))
