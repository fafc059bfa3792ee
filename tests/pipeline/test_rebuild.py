"""Rebuilding from a manifest finds the original checkpoint and images, and accepts no others."""

import hashlib
import json
from dataclasses import replace

import networks
import numpy as np
import pytest
from PIL import Image

from mobiledeploy.artifact.artifact import Artifact, Format
from mobiledeploy.artifact.manifest import Manifest, parse_manifest, write_manifest
from mobiledeploy.errors import ArtifactError, DataError, OtherInputsError, UsageError, WeightsError
from mobiledeploy.network import WeightsProvenance
from mobiledeploy.pipeline.rebuild import find_calibration, find_checkpoint, rebuild_float

WEIGHTS = b"weights"
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def pictures(folder, seed, count=4):
    """Write random pictures and return their folder."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The current folder, with a checkpoint and pictures, in which an artifact was exported."""
    folder = tmp_path / "project"
    pictures(folder / "photos", seed=0)
    (folder / "own.pth").write_bytes(WEIGHTS)
    monkeypatch.chdir(folder)
    return folder


def manifest_of(project, **changes) -> Manifest:
    """Write and read the manifest of a network with the project's checkpoint and pictures."""
    model = networks.quantized("v2", short=True)
    provenance = WeightsProvenance(source="file", origin="own.pth", sha256=SHA256)
    own = {"spec": replace(networks.spec_of(model), weights="own.pth"), "provenance": provenance}
    own |= {name: changes.pop(name) for name in own if name in changes}
    model = replace(
        networks.described(model, **own), calibration_source="photos", calibration_count=4
    )
    model = replace(model, **changes)
    artifact = Artifact(
        format=Format.ONNX,
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
def test_a_manifest_of_an_invalid_network_is_refused(project, change):
    """Exit code 3, not 2: the manifest is wrong, not the command."""
    manifest = manifest_of(project)
    spec = replace(manifest.spec, weights="random", **change)
    edited = manifest.model_copy(update={"spec": spec})
    with pytest.raises(
        ArtifactError, match=r"a\.onnx\.json describes an invalid network: "
    ) as refused:
        rebuild_float(edited, None)
    assert refused.value.exit_code == 3


def test_paths_are_found_from_the_folder_of_the_export(project):
    manifest = manifest_of(project)
    assert find_checkpoint(manifest).read_bytes() == WEIGHTS
    assert find_calibration(manifest).count == 4


def test_paths_are_found_from_another_folder(project, tmp_path, monkeypatch):
    manifest = manifest_of(project)
    monkeypatch.chdir(tmp_path)
    assert find_checkpoint(manifest).read_bytes() == WEIGHTS
    assert find_calibration(manifest).count == 4


def test_paths_are_found_after_the_project_has_moved(project, tmp_path, monkeypatch):
    manifest_of(project)
    moved = project.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    manifest = parse_manifest(moved / "exports" / "a.onnx.json")
    assert find_checkpoint(manifest).is_relative_to(moved)
    assert find_calibration(manifest).source.startswith(str(moved))


def test_other_files_of_the_same_names_are_ignored(project, tmp_path, monkeypatch):
    """The current folder has an `own.pth` and `photos` too; their sha256 differ."""
    manifest = manifest_of(project)
    other = tmp_path / "other"
    pictures(other / "photos", seed=1)
    (other / "own.pth").write_bytes(b"something else")
    monkeypatch.chdir(other)
    assert find_checkpoint(manifest).read_bytes() == WEIGHTS
    assert find_calibration(manifest).sha256 == manifest.calibration.sha256


def test_a_given_path_is_the_only_one_searched(project, tmp_path):
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


def test_missing_inputs_are_named_with_the_option_for_them(project):
    manifest = manifest_of(project)
    (project / "own.pth").unlink()
    with pytest.raises(WeightsError, match=r"no longer at own\.pth") as caught:
        find_checkpoint(manifest)
    assert "--weights" in caught.value.remedy
    (project / "photos").rename(project / "elsewhere")
    with pytest.raises(DataError, match="no longer at photos") as caught:
        find_calibration(manifest)
    assert "--calib-data" in caught.value.remedy


def test_a_folder_of_the_same_name_with_too_few_images_is_ignored(project, tmp_path, monkeypatch):
    manifest = manifest_of(project)
    pictures(tmp_path / "other" / "photos", seed=0, count=2)
    monkeypatch.chdir(tmp_path / "other")
    assert find_calibration(manifest).count == 4


def test_one_changed_picture_is_noticed(project):
    manifest = manifest_of(project)
    Image.new("RGB", (40, 40)).save(project / "photos" / "2.png")
    with pytest.raises(OtherInputsError, match="not those of the artifact"):
        find_calibration(manifest)


def test_bundled_images_that_changed_are_noticed(project):
    manifest = manifest_of(project, calibration_source="embedded", calibration_count=32)
    with pytest.raises(OtherInputsError, match="the bundled images have"):
        find_calibration(manifest)
    with pytest.raises(DataError, match="has 4 images, fewer than the 32"):
        find_calibration(manifest, project / "photos")


def test_random_weights_have_no_file(project):
    model = networks.quantized("v2", short=True)
    manifest = manifest_of(project, spec=networks.spec_of(model), provenance=model.info.provenance)
    assert find_checkpoint(manifest) is None
    with pytest.raises(UsageError, match="come from no file"):
        find_checkpoint(manifest, project / "own.pth")


def test_published_weights_can_be_read_from_a_file(project):
    """For a machine without network access."""
    published = WeightsProvenance(source="imagenet", origin="https://...", sha256=SHA256)
    spec = replace(networks.spec_of(networks.quantized("v2", short=True)), weights="imagenet")
    manifest = manifest_of(project, spec=spec, provenance=published)
    assert find_checkpoint(manifest) is None
    assert find_checkpoint(manifest, project / "own.pth") == project / "own.pth"


def test_a_float_network_has_no_calibration(project):
    manifest = manifest_of(project).model_copy(update={"calibration": None})
    assert find_calibration(manifest) is None
    with pytest.raises(UsageError, match="no calibration"):
        find_calibration(manifest, project / "photos")
