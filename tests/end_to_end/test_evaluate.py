"""`mobiledeploy evaluate`: accuracy on labelled images, in parts, and with float."""

import json
import re

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


@pytest.mark.ci
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


@pytest.mark.ci
def test_classes_and_mistakes_are_listed(mobiledeploy, pair, workplace, labelled):
    words = ("evaluate", *pair, "--data", labelled, "--json", "all.json", "--list")
    done = mobiledeploy(*words, 10, cwd=workplace)
    assert done.returncode == 0, done.stderr
    *_, last = json.loads((workplace / "all.json").read_text())["networks"]
    assert [each["images"] for each in last["classes"]] == [2] * 10
    assert sum(each["top1"] for each in last["classes"]) == last["counts"]["top1"]
    assert sum(pair["images"] for pair in last["confusions"]) == 20 - last["counts"]["top1"]
    _, table = done.stdout.split("Classes with the lowest top-1 accuracy of the last network:")
    table, mistakes = table.split("Most frequent mistakes of the last network:")
    worst = min(last["classes"], key=lambda each: (each["top1"], each["label"]))
    rows = [line.split() for line in table.splitlines() if re.match(r" class \d", line)]
    assert len(rows) == 10
    assert rows[0][:2] == ["class", str(worst["label"])]
    first = last["confusions"][0]
    line = f"{first['images']} x class {first['label']} taken for class {first['predicted']}"
    assert line in mistakes.splitlines()[1]
    assert all(len(line) <= 80 for line in done.stdout.splitlines()[1:])

    few = mobiledeploy(*words, 3, cwd=workplace)
    assert "7 more: --list 10 shows all of them." in few.stdout
    assert few.stdout.count(" taken for class ") == 3
    none = mobiledeploy(*words, 0, cwd=workplace)
    assert "lowest top-1" not in none.stdout
    assert "taken for" not in none.stdout


@pytest.mark.ci
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


@pytest.mark.ci
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
