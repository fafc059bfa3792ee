"""Eight faults that a user may meet: each is refused, at the rung where it was planted."""

import json
from pathlib import Path

import numpy as np
import planted
import pytest
from refusals import refused

from mobiledeploy.utils.files import sha256_of


def as_if_exported(artifact: Path) -> None:
    """Make the manifest beside a changed artifact describe it: only its numbers can tell."""
    manifest = artifact.with_name(artifact.name + ".json")
    document = json.loads(manifest.read_text())
    document["artifact"] |= {
        "sha256": sha256_of(artifact),
        "size_bytes": artifact.stat().st_size,
    }
    manifest.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (planted.perturbed_weight(6), "features.3.conv.0.0 conv2d_6"),
        (planted.shifted_zero_point(5), "features.2.conv.0.0 conv2d_3"),
        (planted.swapped_channels(9), "features.4.conv.0.0 conv2d_9"),
        (planted.takes_bgr, "features.0.0 conv2d"),
        (planted.not_a_number, "80 of 80 logits are NaN or infinite"),
    ],
    ids=["weight", "zero-point", "channels", "bgr", "nan"],
)
def test_a_fault_in_the_onnx_fails_at_its_first_rung(
    mobiledeploy, copied: Path, workplace: Path, fault, said
):
    planted.plant(copied, copied, fault)
    as_if_exported(copied)
    done = mobiledeploy("parity", copied, cwd=workplace)
    refused(done, 1, "Parity failed at the rung 'onnx-unoptimized'", said)


def test_images_in_bgr_fail_at_float(mobiledeploy, exported_trained, tmp_path: Path):
    """The network of the shared checkpoint, given CIFAR's images as OpenCV would read them."""
    artifact, images = exported_trained
    arrays = np.load(images)
    some = {name: arrays[name][::10] for name in ("images", "labels")}
    np.savez(tmp_path / "labelled.npz", **some | {"images": some["images"][..., ::-1]})
    np.savez(tmp_path / "bgr.npz", images=some["images"][..., ::-1])
    for data, said in (("labelled.npz", "is right on"), ("bgr.npz", "has larger logits on")):
        done = mobiledeploy("parity", artifact, "--data", data, cwd=tmp_path)
        refused(done, 1, "at the rung 'float'", said, "the images look like BGR")


def test_preprocessing_that_is_not_the_artifacts_is_told_field_by_field(
    mobiledeploy, copied: Path, workplace: Path
):
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


def test_an_encoding_that_was_edited_is_not_the_networks(mobiledeploy, copied: Path, workplace):
    """The digest is still the old one; nobody looked at what it is of."""
    edited(copied, "encodings", "x", "scale", value=0.5)
    said = "activation encodings differ, first that of x"
    refused(mobiledeploy("parity", copied, cwd=workplace), 3, said)


def test_an_encoding_that_was_taken_out(mobiledeploy, copied: Path, workplace):
    edited(copied, "encodings", value={})
    said = "activation encodings differ, first that of x"
    refused(mobiledeploy("parity", copied, cwd=workplace), 3, said)


@pytest.mark.parametrize("option", ["--json", "--junit"])
def test_an_artifact_is_not_written_over(mobiledeploy, copied: Path, workplace, option: str):
    before = copied.read_bytes()
    done = mobiledeploy("parity", copied, option, copied, cwd=workplace)
    refused(done, 2, "is an input of this command")
    assert copied.read_bytes() == before


def test_a_layer_kept_in_float_that_there_is_not(mobiledeploy, copied: Path, workplace):
    edited(copied, "recipe", "float_layers", value=["nope"])
    refused(mobiledeploy("parity", copied, cwd=workplace), 3, "describes no network", "'nope'")


def test_a_format_that_the_artifact_has_not(mobiledeploy, copied: Path, workplace):
    edited(copied, "artifact", "format", value="pte")
    done = mobiledeploy("parity", copied, cwd=workplace)
    refused(done, 3, "manifest", "is damaged: artifact.format is 'pte'")


def test_a_stale_artifact_beside_a_new_manifest(mobiledeploy, copied: Path, workplace: Path):
    planted.plant(copied, copied, planted.perturbed_weight(0))
    refused(
        mobiledeploy("parity", copied, cwd=workplace),
        3,
        "is not the file that its manifest describes",
    )


def test_the_onnx_of_another_model(mobiledeploy, copied: Path, workplace: Path, tmp_path: Path):
    """Under the name of the artifact, and with its digest in the manifest."""
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
    ("nothing", "code", "said"),
    [
        ([], 2, "Missing argument"),
        (["--data", "empty"], 3, "no images in empty"),
        (["--data", "empty.npz"], 3, "has no images"),
        (["--samples", "0"], 2, "--samples"),
    ],
)
def test_a_comparison_of_nothing(mobiledeploy, pair, tmp_path: Path, nothing, code: int, said: str):
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "empty.npz", images=np.zeros((0, 32, 32, 3), np.uint8))
    artifact = [] if code == 2 and not nothing else [pair[1]]
    done = mobiledeploy("parity", *artifact, *nothing, cwd=tmp_path)
    refused(done, code, said)
    assert "Building the network" not in done.stderr  # before the work, not after it
