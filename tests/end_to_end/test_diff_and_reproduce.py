"""The commands `diff` and `reproduce`: their answers and exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import refused
from test_parity_and_exit_codes import trained_checkpoint
from tiny import NETWORK

pytestmark = pytest.mark.ci  # each test starts several commands


@pytest.fixture(scope="module")
def others(workplace: Path) -> str:
    """The name of a folder with other images and labels."""
    folder = workplace / "others"
    folder.mkdir()
    random = np.random.default_rng(5)
    lines = ["file,class_index"]
    for number in range(8):
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((40, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{number}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder.name


@pytest.fixture(scope="module")
def own(mobiledeploy, workplace: Path, others: str) -> Path:
    """An `.onnx` with trained weights, calibrated with the other images."""
    trained_checkpoint(workplace / "own.pth")
    done = mobiledeploy(
        *("export", "v2", "--int8", *NETWORK, "--weights", "own.pth"),
        *("--calib-data", others, "--format", "onnx", "--no-parity", "--out", "own", "--json"),
        cwd=workplace,
    )
    assert done.returncode == 0, done.stderr
    return workplace / json.loads(done.stdout)["artifacts"][0]["path"]


@pytest.fixture(scope="module")
def recalibrated(mobiledeploy, workplace: Path, others: str) -> Path:
    """The `.onnx` of `pair`, calibrated with the other images."""
    done = mobiledeploy(
        *("export", "v2", "--int8", *NETWORK, "--calib-data", others),
        *("--format", "onnx", "--no-parity", "--out", "again", "--json"),
        cwd=workplace,
    )
    assert done.returncode == 0, done.stderr
    return workplace / json.loads(done.stdout)["artifacts"][0]["path"]


def manifest_of(artifact: Path) -> Path:
    return artifact.with_name(artifact.name + ".json")


def test_a_copy_has_no_difference(mobiledeploy, pair, copied: Path, workplace: Path):
    done = mobiledeploy("diff", pair[1], manifest_of(copied), cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "No difference: same bytes, same inputs."


def test_other_calibration(mobiledeploy, pair, recalibrated: Path, workplace: Path, others: str):
    done = mobiledeploy("diff", pair[1], recalibrated, "--data", others, cwd=workplace)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "The inputs differ in calibration only" in text
    assert "8 images from pictures" in text
    assert "activations differ. Scale of B over A" in text
    assert "range in A range in B" in text
    assert "of 80 logits differ" in text
    assert "closer to float" in text
    assert "more accurate" in text
    assert "was calibrated with images from others, which favours it" in done.stderr
    table = done.stdout[done.stdout.index("\n network ") : done.stdout.index("Encodings:")]
    assert max(map(len, table.splitlines())) <= 80


def test_other_weights_as_json(mobiledeploy, pair, own: Path, workplace: Path):
    done = mobiledeploy("diff", pair[1], own, "--json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["kind"] == "mobiledeploy.diff"
    assert document["same"] is False
    inputs = {entry["name"]: entry["changes"] for entry in document["inputs"]}
    assert [name for name, changes in inputs.items() if changes] == ["weights", "calibration"]
    assert {change["field"] for change in inputs["weights"]} >= {"source", "sha256"}
    assert document["encodings"]["moved"]
    assert document["outputs"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("none.onnx", "none.onnx"), 3, "There is no file none.onnx"),
        (("only-one.onnx",), 2, "Missing argument"),
    ],
)
def test_invalid_requests(mobiledeploy, tmp_path: Path, arguments, code, message):
    refused(mobiledeploy("diff", *arguments, cwd=tmp_path), code, message)


def test_an_artifact_reproduces_from_another_folder(mobiledeploy, own: Path, tmp_path: Path):
    """The paths of checkpoint and images are relative to the folder of the export."""
    done = mobiledeploy("reproduce", manifest_of(own), "--out", "kept", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["same"] is True
    assert document["reasons"] == []
    assert document["found_sha256"] == document["expected_sha256"]
    assert (tmp_path / "kept" / own.name).read_bytes() == own.read_bytes()
    assert "Reproduced: the same bytes" in done.stderr


def test_the_effect_of_another_recipe_is_explained(mobiledeploy, copied: Path, workplace: Path):
    """The manifest was edited and names another rounding than the artifact has."""
    manifest = manifest_of(copied)
    document = json.loads(manifest.read_text())
    document["recipe"]["rounding"] = "nearest"
    manifest.write_text(json.dumps(document))
    done = mobiledeploy("reproduce", copied, cwd=workplace)
    refused(
        done,
        1,
        f"NOT reproduced: {manifest}",
        "The int8 weights or biases differ: they were rounded differently.",
        "All versions are the same",
    )


def test_wrong_weights_and_wrong_images_are_both_named(
    mobiledeploy, own: Path, workplace: Path, tmp_path: Path
):
    (tmp_path / "other.pth").write_bytes(b"something else")
    replaced = ("--weights", tmp_path / "other.pth", "--calib-data", workplace / "pictures")
    done = mobiledeploy("reproduce", own, *replaced, cwd=tmp_path)
    refused(
        done,
        1,
        "NOT reproduced",
        "The weights at",
        "other.pth are not those of the artifact",
        "The calibration images are not those",
        "pictures have",
    )
    assert "Exporting" not in done.stderr  # nothing was built


def test_missing_images(mobiledeploy, copied: Path, tmp_path: Path):
    done = mobiledeploy("reproduce", manifest_of(copied), cwd=tmp_path)
    refused(done, 3, "The calibration images are no longer at pictures", "--calib-data")


def test_a_damaged_manifest(mobiledeploy, copied: Path, tmp_path: Path):
    manifest = manifest_of(copied)
    manifest.write_text(manifest.read_text()[:200])
    refused(mobiledeploy("reproduce", manifest, cwd=tmp_path), 3, "damaged")
