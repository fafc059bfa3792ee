"""An artifact built again from its manifest: what is refused, and why bytes differ.

The whole way is walked by tests/end_to_end/test_diff_and_reproduce.py.
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
    """A float artifact whose manifest tells of random weights that another seed made."""
    made = exported_to("onnx", "v2", precision="fp32")
    path = tmp_path / "made" / made.path.name
    path.parent.mkdir()
    path.write_bytes(made.path.read_bytes())
    write_manifest(replace(made, path=path), networks.folded("v2", short=True), None)
    return path


def edit(artifact, **changes):
    document = json.loads(manifest_path(artifact).read_text())
    manifest_path(artifact).write_text(json.dumps(document | changes))


def test_the_artifact_itself_is_never_overwritten(artifact):
    before = artifact.read_bytes()
    with pytest.raises(UsageError, match="would be overwritten"):
        reproduce(artifact, out=artifact.parent)
    assert artifact.read_bytes() == before


def test_options_that_say_nothing_are_refused(artifact, tmp_path):
    with pytest.raises(UsageError, match="come from no file"):
        reproduce(artifact, weights=tmp_path)
    with pytest.raises(UsageError, match="no calibration"):
        reproduce(artifact, calib_data=tmp_path)


def test_a_stale_artifact_beside_the_manifest_is_refused(artifact):
    artifact.write_bytes(b"another")
    for given in (artifact, manifest_path(artifact)):
        with pytest.raises(ArtifactError, match="not the file that its manifest describes"):
            reproduce(given)


def test_nothing_is_built_from_other_images(artifact, exported_to):
    """The manifest names eight images of the package; the package's are others."""
    made = replace(exported_to("onnx", "v2"), path=artifact)
    artifact.write_bytes(exported_to("onnx", "v2").path.read_bytes())
    model = replace(networks.quantized("v2", short=True), calibration_source="embedded")
    write_manifest(made, model, None)
    done = reproduce(artifact)
    assert not done.same
    assert (done.found_sha256, done.difference) == ("", None)
    (reason,) = done.reasons
    assert reason.startswith("The calibration images are not those")


def test_bytes_that_differ_are_explained_and_nothing_is_left(artifact, tmp_path, monkeypatch):
    """The test's network has other BatchNorm statistics than those that its seed gives."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    done = reproduce(artifact)
    assert not done.same
    assert done.expected_sha256 == sha256_of(artifact)
    assert done.found_sha256 not in ("", done.expected_sha256)
    (reason,) = done.reasons  # of a float network's weights nothing is known
    assert reason.startswith("All versions are those that made it")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_other_versions_are_the_first_reason(artifact):
    versions = json.loads(manifest_path(artifact).read_text())["tool_versions"]
    edit(artifact, tool_versions=versions | {"torch": "1.0"})
    done = reproduce(artifact)
    assert done.reasons[0] == f"torch 1.0 made the artifact, {versions['torch']} is here."
    assert not any("All versions" in reason for reason in done.reasons)


def test_what_was_built_gives_the_same_bytes_again(artifact, tmp_path):
    first = reproduce(artifact, out=tmp_path / "kept")
    kept = tmp_path / "kept" / artifact.name
    assert sha256_of(kept) == first.found_sha256
    again = reproduce(manifest_path(kept))
    assert again.same
    assert (again.reasons, again.difference) == ((), None)
