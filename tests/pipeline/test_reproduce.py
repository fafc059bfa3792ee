"""Reproducing an artifact: invalid requests, and the reasons for different bytes.

tests/end_to_end/test_diff_and_reproduce.py tests the command on unchanged artifacts.
"""

import json
from dataclasses import replace

import networks
import pytest

from mobiledeploy.artifact.manifest import manifest_path, write_manifest
from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.pipeline.reproduce import reproduce
from mobiledeploy.utils.files import sha256_of


@pytest.fixture
def artifact(tmp_path, exported_to):
    """A float artifact whose manifest names another seed of the random weights."""
    made = exported_to("onnx", "v2", precision="fp32")
    path = tmp_path / "made" / made.path.name
    path.parent.mkdir()
    path.write_bytes(made.path.read_bytes())
    write_manifest(replace(made, path=path), networks.folded("v2", short=True), None)
    return path


def edit(artifact, **changes):
    document = json.loads(manifest_path(artifact).read_text())
    manifest_path(artifact).write_text(json.dumps(document | changes))


def test_the_artifact_is_never_overwritten(artifact):
    before = artifact.read_bytes()
    with pytest.raises(UsageError, match="would be overwritten"):
        reproduce(artifact, out=artifact.parent)
    assert artifact.read_bytes() == before


def test_options_that_do_not_apply_are_refused(artifact, tmp_path):
    with pytest.raises(UsageError, match="come from no file"):
        reproduce(artifact, weights=tmp_path)
    with pytest.raises(UsageError, match="no calibration"):
        reproduce(artifact, calib_data=tmp_path)


def test_an_artifact_of_another_export_is_refused(artifact):
    artifact.write_bytes(b"another")
    for given in (artifact, manifest_path(artifact)):
        with pytest.raises(ArtifactError, match="not the file that its manifest describes"):
            reproduce(given)


def test_nothing_is_built_with_other_images(artifact, exported_to):
    """The manifest claims eight bundled images with another sha256."""
    made = replace(exported_to("onnx", "v2"), path=artifact)
    artifact.write_bytes(exported_to("onnx", "v2").path.read_bytes())
    model = replace(networks.quantized("v2", short=True), calibration_source="embedded")
    write_manifest(made, model, None)
    done = reproduce(artifact)
    assert not done.same
    assert (done.found_sha256, done.difference) == (None, None)
    (reason,) = done.reasons
    assert reason.startswith("The calibration images are not those")


def test_different_bytes_are_explained_and_temporary_files_removed(artifact, tmp_path, monkeypatch):
    """The artifact has other BatchNorm statistics than its seed gives."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    done = reproduce(artifact)
    assert not done.same
    assert done.expected_sha256 == sha256_of(artifact)
    assert done.found_sha256 not in (None, done.expected_sha256)
    (reason,) = done.reasons  # the manifest of a float network has no digest of its weights
    assert reason.startswith("All versions are the same")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_different_versions_are_the_first_reason(artifact):
    versions = json.loads(manifest_path(artifact).read_text())["tool_versions"]
    edit(artifact, tool_versions=versions | {"torch": "1.0"})
    done = reproduce(artifact)
    assert done.reasons[0] == f"torch 1.0 made the artifact, {versions['torch']} is installed."
    assert not any("All versions" in reason for reason in done.reasons)


def test_a_rebuilt_artifact_reproduces(artifact, tmp_path):
    first = reproduce(artifact, out=tmp_path / "kept")
    kept = tmp_path / "kept" / artifact.name
    assert sha256_of(kept) == first.found_sha256
    again = reproduce(manifest_path(kept))
    assert again.same
    assert (again.reasons, again.difference) == ((), None)
