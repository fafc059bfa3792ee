"""`mobiledeploy export` through the installed command: random weights in, checked artifacts out."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tiny import CONFIG, NAME, NETWORK

NOISE = ("Traceback", "torchao", "torch/", "cpuinfo", "W1", "[W", "deprecated")
FEW = "8 calibration images are few: give 32 or more, 100 for the best."


def test_stdout_is_one_json_document_and_nothing_else(exported, document: dict):
    assert json.dumps(document, indent=2) + "\n" == exported.stdout
    assert [artifact["format"] for artifact in document["artifacts"]] == ["pte", "onnx"]
    assert document["parity"]["passed"] is True
    assert document["warnings"] == [FEW]


def test_stderr_is_free_of_other_libraries_chatter(exported):
    assert "Lowering to ExecuTorch" in exported.stderr
    assert [word for word in NOISE if word in exported.stderr] == []
    assert "Warning" not in exported.stderr.replace(f"Warning: {FEW}\n", "")
    assert "\n\n" not in exported.stderr


def test_the_folder_holds_the_artifacts_and_their_manifests_only(pair, document: dict):
    names = {path.name for path in pair[0].parent.iterdir()}
    assert names == {f"{NAME}-int8.{end}" for end in ("pte", "onnx", "pte.json", "onnx.json")}
    for artifact, described in zip(pair, document["artifacts"], strict=True):
        manifest = json.loads(artifact.with_name(artifact.name + ".json").read_text())
        assert artifact.stat().st_size == described["size_bytes"]
        assert described["sha256"] in json.dumps(manifest)


def test_both_formats_give_the_same_logits(document: dict):
    held = [
        comparison
        for rung in document["parity"]["rungs"]
        for comparison in rung["comparisons"]
        if rung["artifact"] and comparison["reference"] in ("integers", "onnx")
    ]
    assert len(held) == 3  # each against the integer reference, and against one another
    assert all(comparison["metrics"]["differing_logits"] == 0 for comparison in held)
    assert all(comparison["metrics"]["logits"] == 8 * 10 for comparison in held)


def test_random_weights_say_so_on_stderr_in_the_name_and_in_the_manifest(exported, pair):
    assert "Random weights: good for latency and size only" in exported.stderr
    for artifact in pair:
        assert "-random" in artifact.name
        manifest = json.loads(artifact.with_name(artifact.name + ".json").read_text())
        assert manifest["weights"]["source"] == "random"


def test_the_same_command_twice_gives_the_same_bytes(export, pair, workplace: Path):
    assert export("second").returncode == 0
    for artifact in pair:
        again = workplace / "second" / artifact.name
        assert again.read_bytes() == artifact.read_bytes()


def test_a_float_export_ends_with_a_table_that_holds_in_80_columns(mobiledeploy, workplace: Path):
    done = mobiledeploy(
        *("export", "v2", *NETWORK, "--format", "onnx", "--out", "float"), cwd=workplace
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert (workplace / "float" / f"{NAME}-fp32.onnx").stat().st_size > 0
    assert f"Next: mobiledeploy bench float/{NAME}-fp32.onnx" in done.stderr
    assert "Parity holds" in done.stderr
    table = done.stderr[done.stderr.index(f"{NAME}-fp32") : done.stderr.index("Parity holds")]
    assert f"{NAME}-fp32\n" in "\n".join(line.rstrip() for line in table.splitlines())
    assert max(map(len, table.splitlines())) <= 80


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, id="a CI job's limit"),
        pytest.param(signal.SIGHUP, 129, id="a closed terminal"),
    ],
)
def test_what_stops_it_leaves_nothing_half_written(
    console_script: Path, offline_environment, workplace: Path, number, code
):
    command = [console_script, "export", "v2", "--int8", *map(str, NETWORK)]
    command += ["--calib-data", "pictures", "--out", "stopped"]
    with subprocess.Popen(
        command, cwd=workplace, env=offline_environment, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if "Converting to int8" in line:  # done; lowering, the longest step, has begun
                break
        time.sleep(0.5)
        process.send_signal(number)
        said = process.stderr.read()
    assert process.returncode == code
    assert "Stopped" in said
    assert "Traceback" not in said
    folder = workplace / "stopped"
    assert not folder.exists() or not list(folder.iterdir())


def test_the_api_does_the_same(tmp_path: Path, workplace: Path, pair):
    import mobiledeploy

    model = mobiledeploy.build("v2", config=CONFIG)
    images = mobiledeploy.load_images(model, workplace / "pictures")
    deployment = mobiledeploy.deploy(model, formats=["onnx"], calibration=images, out=tmp_path)
    assert deployment.parity is not None
    assert deployment.parity.passed
    assert deployment.artifacts[0].path.read_bytes() == pair[1].read_bytes()
    assert images.images.shape == (8, 3, 32, 32)
