"""The manifest: whole and true, or refused with exit code 3."""

import json
from dataclasses import replace

import networks
import pytest

from mobiledeploy.artifact.artifact import Artifact
from mobiledeploy.artifact.manifest import manifest_path, read_manifest, write_manifest
from mobiledeploy.errors import ArtifactError
from mobiledeploy.network import QuantRecipe
from mobiledeploy.utils.files import sha256_of

REPORT = {"passed": True, "rungs": [{"name": "onnx", "passed": True}]}


@pytest.fixture
def artifact(tmp_path):
    """An artifact's record; a manifest does not look into the bytes."""
    path = tmp_path / "a.onnx"
    path.write_bytes(b"the network")
    model = networks.quantized("v2", short=True)
    return Artifact(
        format="onnx",
        path=path,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        precision="int8",
        encodings_digest=model.encodings_digest,
        tool_versions={"torch": "2"},
    )


@pytest.fixture
def manifest(artifact):
    """The path of the manifest beside it."""
    return write_manifest(artifact, networks.quantized("v2", short=True), REPORT)


def refused(artifact, message):
    with pytest.raises(ArtifactError, match=message) as caught:
        read_manifest(artifact.path)
    assert caught.value.exit_code == 3
    assert caught.value.remedy
    return caught.value


def test_what_is_needed_to_rebuild_the_network_comes_back(artifact, manifest):
    model = networks.quantized("v2", short=True)
    found = read_manifest(artifact.path)
    assert found.spec == networks.spec_of(model)
    assert found.info == model.info
    assert found.preprocessing == model.info.preprocessing
    assert found.recipe == model.recipe == QuantRecipe(equalization="cross-layer")
    assert found.document["encodings_sha256"] == model.encodings_digest
    described = found.document["calibration"]
    assert (described["source"], described["count"]) == ("pixels", 8)
    assert described["sha256"] == "c0ffee"
    assert found.labels == model.info.labels
    assert (found.path, found.folder) == (manifest, manifest.parent)
    assert found.artifact == artifact.path
    assert found.document["artifact"]["sha256"] == artifact.sha256
    assert found.document["parity"]["passed"] is True
    encodings = {name: (e.scale, e.zero_point) for name, e in model.encodings.items()}
    assert encodings == {
        name: (e["scale"], e["zero_point"]) for name, e in found.document["encodings"].items()
    }
    assert manifest.name == "a.onnx.json"


def test_a_recipe_other_than_the_default_comes_back(artifact):
    recipe = QuantRecipe(range_rule="minmax")
    write_manifest(artifact, replace(networks.quantized("v2", short=True), recipe=recipe), None)
    found = read_manifest(artifact.path)
    assert found.recipe == recipe
    assert "parity" not in found.document


def test_a_float_network_has_no_recipe(artifact):
    write_manifest(replace(artifact, precision="fp32"), networks.folded("v2", short=True), None)
    found = read_manifest(artifact.path)
    assert found.recipe is None
    assert "encodings" not in found.document


def test_paths_are_told_from_the_manifests_folder_too(tmp_path, artifact, monkeypatch):
    """A project moves as a whole: what lay beside the exports will lie there again."""
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


def test_images_and_weights_that_have_names_have_no_path(artifact):
    model = replace(networks.quantized("v2", short=True), calibration_source="embedded")
    document = json.loads(write_manifest(artifact, model, None).read_text())
    assert "from_manifest" not in document["calibration"]
    assert "from_manifest" not in document["weights"]


def test_the_same_network_writes_the_same_manifest(artifact, manifest):
    first = manifest.read_bytes()
    write_manifest(artifact, networks.quantized("v2", short=True), REPORT)
    assert manifest.read_bytes() == first


@pytest.mark.usefixtures("manifest")
def test_a_stale_artifact_beside_a_new_manifest_is_refused(artifact):
    artifact.path.write_bytes(b"another network")
    error = refused(artifact, "not the file that its manifest describes")
    assert artifact.sha256[:12] in str(error)


@pytest.mark.parametrize("digest", ["", "c0ffee"])
def test_a_manifest_with_another_digest_is_refused(artifact, manifest, digest):
    document = json.loads(manifest.read_text())
    document["artifact"]["sha256"] = digest
    manifest.write_text(json.dumps(document))
    refused(artifact, "not the file that its manifest describes")


def test_a_missing_manifest_is_named(artifact):
    refused(artifact, r"manifest .*a\.onnx\.json is missing")


@pytest.mark.usefixtures("manifest")
def test_a_missing_artifact_is_named(artifact):
    artifact.path.unlink()
    refused(artifact, r"no file .*a\.onnx")


def test_a_folder_in_place_of_the_manifest_is_no_manifest(artifact):
    manifest_path(artifact.path).mkdir()
    refused(artifact, "is missing")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"3", b'"schema"', b"{}", b"\xff\xfe\x00", b'{"schema": 1}'],
)
def test_a_damaged_manifest_is_refused(artifact, content):
    manifest_path(artifact.path).write_bytes(content)
    refused(artifact, "damaged")


def test_a_manifest_that_is_a_list_is_no_object(artifact, manifest):
    manifest.write_text("[1]")
    refused(artifact, "no JSON object")


def test_a_manifest_nested_too_deep_is_damaged(artifact, manifest):
    manifest.write_text("[" * 100_000)
    refused(artifact, "damaged")


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_an_unknown_schema_is_refused(artifact, manifest, schema):
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(document | {"schema": schema}))
    refused(artifact, "has schema .*; expected 2")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spec", []),
        ("spec", {"family": "v2", "colour": "red"}),
        ("spec", {}),
        ("spec", None),
        ("preprocessing", {"mean": 3}),
        ("preprocessing", None),
        ("recipe", {"speed": 3}),
        ("recipe", "minmax"),
        ("recipe", {"float_layers": "features.0.0"}),
        ("recipe", {"rounding": "magic"}),
        ("labels", ["a"]),
        ("artifact", {}),
        ("artifact", None),
        ("labels", None),
        ("calibration", {"source": "pixels", "count": 8}),
        ("encodings", None),
        ("precision", None),
    ],
)
def test_a_manifest_with_a_damaged_part_is_refused(artifact, manifest, key, value):
    document = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(document | {key: value}))
    refused(artifact, "damaged")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("artifact.file", 3),
        ("artifact.sha256", None),
        ("artifact.size_bytes", "10 MB"),
        ("spec.family", True),
        ("spec.width", None),
        ("spec.width", True),
        ("spec.resolution", "32"),
        ("spec.resolution", 0),
        ("weights", []),
        ("weights.sha256", 3),
        ("preprocessing.crop_pct", None),
        ("preprocessing.crop_pct", 0),
        ("preprocessing.mean", "0.5"),
        ("preprocessing.mean", [0.5]),
        ("preprocessing.std", [0.5, float("nan"), 0.5]),
        ("labels", ["tench", 3]),
        ("tool_versions.torch", 2),
        ("recipe.rounding", 1),
        ("recipe.float_layers", [3]),
        ("calibration.source", None),
        ("calibration.count", 8.5),
        ("encodings.x.scale", "small"),
        ("encodings.x.scale", -1.0),
        ("encodings.x.zero_point", None),
        ("int8_coverage.macs_share", "all"),
        ("int8_coverage", None),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(artifact, manifest, path, value):
    document = json.loads(manifest.read_text())
    assert "x" in document["encodings"]
    document["int8_coverage"] = {"macs_share": 1.0}
    *above, name = path.split(".")
    node = document
    for step in above:
        node = node[step]
    node[name] = value
    manifest.write_text(json.dumps(document))
    assert path in str(refused(artifact, "is damaged"))
