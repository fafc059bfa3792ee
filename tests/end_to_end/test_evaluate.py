"""`mobiledeploy evaluate`: accuracy on labelled images, in parts, and with float."""

import json

import numpy as np
import pytest
from PIL import Image
from refusals import refused


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """Twenty photographs in ten class folders."""
    folder = tmp_path_factory.mktemp("labelled")
    random = np.random.default_rng(1)
    for label in range(10):
        (folder / f"class{label}").mkdir()
        for number in range(2):
            pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            image = Image.fromarray(pixels).resize((40, 40))
            image.save(folder / f"class{label}" / f"{number}.png")
    return folder


def test_artifacts_are_compared_with_float(mobiledeploy, pair, workplace, labelled):
    done = mobiledeploy(
        "evaluate", *pair, "--data", labelled, "--float", "--json", "-", cwd=workplace
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["kind"], found["images"]) == ("mobiledeploy.evaluation", 20)
    network, pte, onnx = found["networks"]
    assert network["name"] == "float PyTorch"
    assert network["agreement"] == 1.0
    assert pte["counts"] == onnx["counts"]  # the same logits
    assert pte["counts"]["images"] == 20
    assert sum(pte["counts"]["predictions"].values()) == 20


def test_parts_add_up(mobiledeploy, pair, workplace, labelled, tmp_path):
    for part in (1, 2, 3):
        done = mobiledeploy(
            *("evaluate", pair[1], "--data", labelled, "--shard", f"{part}/3"),
            *("--json", tmp_path / f"{part}.json"),
            cwd=workplace,
        )
        assert done.returncode == 0, done.stderr
    merged = mobiledeploy(
        *("evaluate", "--merge", *(tmp_path / f"{part}.json" for part in (3, 1, 2))),
        *("--json", "-"),
        cwd=workplace,
    )
    assert merged.returncode == 0, merged.stderr
    whole = mobiledeploy("evaluate", pair[1], "--data", labelled, "--json", "-", cwd=workplace)
    assert json.loads(merged.stdout) == json.loads(whole.stdout)
    shown = mobiledeploy("evaluate", "--merge", tmp_path / "1.json", cwd=workplace)
    assert shown.stdout.startswith("6 of 20 images of ")
    assert "top-1" in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines()[1:])
    twice = mobiledeploy(
        "evaluate", "--merge", tmp_path / "1.json", tmp_path / "1.json", cwd=workplace
    )
    refused(twice, 3, "Image 0 of ", "is in two of the results")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--data", "pictures"], "have no labels"),
        ([], "There are no images"),
        (["--data", "pictures", "--shard", "3/2"], "expected I/N with 1 <= I <= N"),
        (["--data", "pictures", "--shard", "x"], "expected I/N"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(mobiledeploy, pair, workplace, words, message):
    done = mobiledeploy("evaluate", pair[1], *words, cwd=workplace)
    refused(done, 3 if "have no labels" in message else 2, message)
