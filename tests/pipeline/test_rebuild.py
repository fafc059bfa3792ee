"""Checkpoint and calibration images are found where they are today, and never others in place."""

import hashlib
import json
from dataclasses import replace

import networks
import numpy as np
import pytest
from PIL import Image

from mobiledeploy.artifact.artifact import Artifact
from mobiledeploy.artifact.manifest import Manifest, parse_manifest, write_manifest
from mobiledeploy.errors import ArtifactError, DataError, OtherInputsError, UsageError, WeightsError
from mobiledeploy.network import WeightsProvenance
from mobiledeploy.pipeline.rebuild import find_calibration, find_checkpoint, rebuild_float

WEIGHTS = b"what has been learnt"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def pictures(folder, seed, count=4):
    """Write some pictures."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a checkpoint and pictures, in which an artifact was made; we stand in it."""
    folder = tmp_path / "project"
    pictures(folder / "photos", seed=0)
    (folder / "own.pth").write_bytes(WEIGHTS)
    monkeypatch.chdir(folder)
    return folder


def manifest_of(project, **changes) -> Manifest:
    """Write the manifest of a network with the project's checkpoint and pictures, and read it."""
    model = networks.quantized("v2", short=True)
    provenance = WeightsProvenance(source="file", origin="own.pth", sha256=SHA256)
    own = {"spec": replace(networks.spec_of(model), weights="own.pth"), "provenance": provenance}
    own |= {name: changes.pop(name) for name in own if name in changes}
    model = replace(
        networks.described(model, **own), calibration_source="photos", calibration_count=4
    )
    model = replace(model, **changes)
    artifact = Artifact(
        format="onnx",
        path=project / "exports" / "a.onnx",
        sha256="",
        size_bytes=0,
        precision="int8",
        encodings_digest=model.encodings_digest,
        tool_versions={},
    )
    artifact.path.parent.mkdir(exist_ok=True)
    path = write_manifest(artifact, model, None)
    document = json.loads(path.read_text())
    digests = [
        hashlib.sha256((project / "photos" / f"{i}.png").read_bytes()).hexdigest() for i in range(4)
    ]
    listed = "".join(f"{digest}\n" for digest in digests)
    document["calibration"]["sha256"] = hashlib.sha256(listed.encode()).hexdigest()
    path.write_text(json.dumps(document))
    return parse_manifest(path)


@pytest.mark.parametrize("change", [{"width": 99.0}, {"family": "v9"}, {"resolution": 1}])
def test_a_manifest_that_describes_no_network_is_damaged(project, change):
    """It was edited: the user who gives it made no mistake in what was typed."""
    manifest = manifest_of(project)
    edited = replace(manifest, spec=replace(manifest.spec, weights="random", **change))
    with pytest.raises(ArtifactError, match=r"a\.onnx\.json describes no network: ") as refused:
        rebuild_float(edited, None)
    assert refused.value.exit_code == 3


def test_where_the_command_was_typed(project):
    manifest = manifest_of(project)
    assert find_checkpoint(manifest).read_bytes() == WEIGHTS
    assert find_calibration(manifest).count == 4


def test_from_any_folder(project, tmp_path, monkeypatch):
    manifest = manifest_of(project)
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(manifest).read_bytes() == WEIGHTS
    assert find_calibration(manifest).count == 4


def test_after_the_project_has_moved(project, tmp_path, monkeypatch):
    manifest_of(project)
    moved = project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    manifest = parse_manifest(moved / "exports" / "a.onnx.json")
    assert find_checkpoint(manifest).is_relative_to(moved)
    assert find_calibration(manifest).source.startswith(str(moved))


def test_files_of_the_same_names_that_lie_here_are_passed_over(project, tmp_path, monkeypatch):
    """Another project has an `own.pth` and `photos` too: the sha256 tells them apart."""
    manifest = manifest_of(project)
    other = tmp_path / "other"
    pictures(other / "photos", seed=1)
    (other / "own.pth").write_bytes(b"something else")
    monkeypatch.chdir(other)
    assert find_checkpoint(manifest).read_bytes() == WEIGHTS
    assert find_calibration(manifest).sha256 == manifest.document["calibration"]["sha256"]


def test_what_is_given_counts_and_nothing_else(project, tmp_path):
    manifest = manifest_of(project)
    (tmp_path / "copy.pth").write_bytes(WEIGHTS)
    assert find_checkpoint(manifest, tmp_path / "copy.pth") == tmp_path / "copy.pth"
    pictures(tmp_path / "copies", seed=0)
    assert find_calibration(manifest, tmp_path / "copies").source == str(tmp_path / "copies")
    pictures(tmp_path / "others", seed=1)
    with pytest.raises(OtherInputsError, match=r"images are not those .*others have"):
        find_calibration(manifest, tmp_path / "others")
    (tmp_path / "other.pth").write_bytes(b"something else")
    with pytest.raises(OtherInputsError, match=rf"expected {SHA256[:12]}"):
        find_checkpoint(manifest, tmp_path / "other.pth")


def test_what_is_gone_is_asked_for(project):
    manifest = manifest_of(project)
    (project / "own.pth").unlink()
    with pytest.raises(WeightsError, match=r"no longer at own\.pth") as caught:
        find_checkpoint(manifest)
    assert "--weights" in caught.value.remedy
    (project / "photos").rename(project / "elsewhere")
    with pytest.raises(DataError, match="no longer at photos") as caught:
        find_calibration(manifest)
    assert "--calib-data" in caught.value.remedy


def test_too_few_pictures_that_lie_here_are_passed_over_too(project, tmp_path, monkeypatch):
    manifest = manifest_of(project)
    pictures(tmp_path / "other" / "photos", seed=0, count=2)
    monkeypatch.chdir(tmp_path / "other")
    assert find_calibration(manifest).count == 4


def test_one_changed_picture_makes_other_images(project):
    manifest = manifest_of(project)
    Image.new("RGB", (40, 40)).save(project / "photos" / "2.png")
    with pytest.raises(OtherInputsError, match="not those that the artifact was made with"):
        find_calibration(manifest)


def test_embedded_images_are_those_of_the_package(project):
    manifest = manifest_of(project, calibration_source="embedded", calibration_count=32)
    with pytest.raises(OtherInputsError, match="those that this package carries"):
        find_calibration(manifest)
    with pytest.raises(DataError, match="has 4 images, fewer than the 32"):
        find_calibration(manifest, project / "photos")


def test_weights_with_a_name_have_no_file(project):
    model = networks.quantized("v2", short=True)
    manifest = manifest_of(project, spec=networks.spec_of(model), provenance=model.info.provenance)
    assert find_checkpoint(manifest) is None
    with pytest.raises(UsageError, match="come from no file"):
        find_checkpoint(manifest, project / "own.pth")


def test_published_weights_may_come_from_a_file(project):
    """On a machine without network: it is the sha256 that counts."""
    published = WeightsProvenance(source="imagenet", origin="https://...", sha256=SHA256)
    spec = replace(networks.spec_of(networks.quantized("v2", short=True)), weights="imagenet")
    manifest = manifest_of(project, spec=spec, provenance=published)
    assert find_checkpoint(manifest) is None
    assert find_checkpoint(manifest, project / "own.pth") == project / "own.pth"


def test_a_float_network_was_not_calibrated(project):
    manifest = replace(manifest_of(project), recipe=None)
    assert find_calibration(manifest) is None
    with pytest.raises(UsageError, match="no calibration"):
        find_calibration(manifest, project / "photos")
