"""Faults that `parity` must find, at the rung where they were planted."""

import json
from pathlib import Path

import numpy as np
import planted
import pytest
from refusals import refused

from mobiledeploy.utils.files import sha256_of

pytestmark = pytest.mark.ci  # each test starts several commands


def as_if_exported(artifact: Path) -> None:
    """Update the manifest of a changed artifact, so that only its outputs show the change."""
    manifest = artifact.with_name(artifact.name + ".json")
    document = json.loads(manifest.read_text())
    document["artifact"] |= {
        "sha256": sha256_of(artifact),
        "size_bytes": artifact.stat().st_size,
    }
    manifest.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (planted.perturbed_weight(6), "features.3.conv.0.0 conv2d_6"),
        (planted.shifted_zero_point(5), "features.2.conv.0.0 conv2d_3"),
        (planted.swapped_channels(9), "features.4.conv.0.0 conv2d_9"),
        (planted.takes_bgr, "features.0.0 conv2d"),
        (planted.not_a_number, "80 of 80 logits are NaN or infinite"),
    ],
    ids=["weight", "zero-point", "channels", "bgr", "nan"],
)
def test_a_fault_in_the_onnx_fails_at_the_first_onnx_rung(
    mobiledeploy, copied: Path, workplace: Path, fault, message
):
    planted.plant(copied, copied, fault)
    as_if_exported(copied)
    done = mobiledeploy("parity", copied, cwd=workplace)
    refused(done, 1, "Parity failed at the rung 'onnx-unoptimized'", message)


def test_bgr_images_fail_at_float(mobiledeploy, exported_trained, tmp_path: Path):
    """CIFAR's images with the channel order of OpenCV."""
    artifact, images = exported_trained
    arrays = np.load(images)
    some = {name: arrays[name][::10] for name in ("images", "labels")}
    np.savez(tmp_path / "labelled.npz", **some | {"images": some["images"][..., ::-1]})
    np.savez(tmp_path / "bgr.npz", images=some["images"][..., ::-1])
    for data, message in (("labelled.npz", "is right on"), ("bgr.npz", "has larger logits on")):
        done = mobiledeploy("parity", artifact, "--data", data, cwd=tmp_path)
        refused(done, 1, "at the rung 'float'", message, "the images look like BGR")


def test_edited_preprocessing_is_listed_by_field(mobiledeploy, copied: Path, workplace: Path):
    manifest = copied.with_name(copied.name + ".json")
    document = json.loads(manifest.read_text())
    for name in ("mean", "std"):
        document["preprocessing"][name].reverse()
    manifest.write_text(json.dumps(document))
    refused(
        mobiledeploy("parity", copied, cwd=workplace),
        3,
        "input.mean is [0.485, 0.456, 0.406] in the artifact and [0.406, 0.456, 0.485] in the",
        "input.std is",
    )


def edited(artifact: Path, *path: str, value: object) -> None:
    """Change one field of an artifact's manifest."""
    manifest = artifact.with_name(artifact.name + ".json")
    document = json.loads(manifest.read_text())
    *parents, last = path
    node = document
    for name in parents:
        node = node[name]
    node[last] = value
    manifest.write_text(json.dumps(document))


def test_an_edited_encoding_is_found(mobiledeploy, copied: Path, workplace):
    """Although the digest in the manifest is unchanged."""
    edited(copied, "encodings", "x", "scale", value=0.5)
    message = "activation encodings differ; the first is that of x"
    refused(mobiledeploy("parity", copied, cwd=workplace), 3, message)


def test_removed_encodings_are_found(mobiledeploy, copied: Path, workplace):
    edited(copied, "encodings", value={})
    message = "activation encodings differ; the first is that of x"
    refused(mobiledeploy("parity", copied, cwd=workplace), 3, message)


@pytest.mark.parametrize("option", ["--json", "--junit"])
def test_a_report_does_not_overwrite_the_artifact(
    mobiledeploy, copied: Path, workplace, option: str
):
    before = copied.read_bytes()
    done = mobiledeploy("parity", copied, option, copied, cwd=workplace)
    refused(done, 2, "is an input of this command")
    assert copied.read_bytes() == before


def test_an_unknown_float_layer_in_the_manifest(mobiledeploy, copied: Path, workplace):
    edited(copied, "recipe", "float_layers", value=["nope"])
    refused(
        mobiledeploy("parity", copied, cwd=workplace), 3, "describes an invalid network", "'nope'"
    )


def test_an_edited_format(mobiledeploy, copied: Path, workplace):
    edited(copied, "artifact", "format", value="pte")
    done = mobiledeploy("parity", copied, cwd=workplace)
    refused(done, 3, "manifest", 'is damaged: `artifact.format` is "pte"')


def test_an_artifact_of_another_export(mobiledeploy, copied: Path, workplace: Path):
    planted.plant(copied, copied, planted.perturbed_weight(0))
    refused(
        mobiledeploy("parity", copied, cwd=workplace),
        3,
        "is not the file that its manifest describes",
    )


def test_the_artifact_of_another_network(
    mobiledeploy, copied: Path, workplace: Path, tmp_path: Path
):
    """With the name of the artifact, and its digest in the manifest."""
    options = ("--weights", "random", "--width", 0.25, "--resolution", 32, "--ptq", "fast")
    made = mobiledeploy(
        *("export", "v1", "--int8", *options, "--calib-data", workplace / "pictures"),
        *("--format", "onnx", "--no-parity", "--json"),
        cwd=tmp_path,
    )
    assert made.returncode == 0, made.stderr
    other = tmp_path / json.loads(made.stdout)["artifacts"][0]["path"]
    other.replace(copied)
    as_if_exported(copied)
    done = mobiledeploy("parity", copied, cwd=workplace)
    refused(done, 3, "do not describe one network", "mobilenet_v1_0.25_32", "mobilenet_v2_0.25_32")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing argument"),
        (["--data", "empty"], 3, "no images in empty"),
        (["--data", "empty.npz"], 3, "has no images"),
        (["--samples", "0"], 2, "--samples"),
    ],
)
def test_nothing_to_compare(mobiledeploy, pair, tmp_path: Path, arguments, code: int, message: str):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "empty.npz", images=np.zeros((0, 32, 32, 3), np.uint8))
    artifact = [pair[1]] if arguments else []
    done = mobiledeploy("parity", *artifact, *arguments, cwd=tmp_path)
    refused(done, code, message)
    assert "Building the network" not in done.stderr  # refused before the work
