"""`mobiledeploy export` through the installed command: random weights in, checked artifacts out."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tiny import CONFIG, NAME, NETWORK

NOISE = ("Traceback", "torchao", "torch/", "cpuinfo", "W1", "[W", "deprecated")


@pytest.mark.ci
def test_stdout_is_one_json_document(exported, document: dict):
    assert json.dumps(document, indent=2) + "\n" == exported.stdout
    assert [artifact["format"] for artifact in document["artifacts"]] == ["pte", "onnx"]
    assert document["parity"]["passed"] is True
    [warning] = document["warnings"]
    assert warning.startswith("8 calibration images are few")


def test_stderr_holds_no_warnings_of_other_libraries(exported):
    assert "Exporting to ExecuTorch" in exported.stderr
    assert [word for word in NOISE if word in exported.stderr] == []
    assert exported.stderr.count("Warning") == 1  # about the number of images
    assert "\n\n" not in exported.stderr


def test_steps_are_numbered_and_named_once(exported):
    steps = re.findall(r"^ +(\d+)/(\d+) ([^:\n]+) \d+\.\d s$", exported.stderr, re.MULTILINE)
    assert [int(number) for number, _, _ in steps] == list(range(1, len(steps) + 1))
    assert {int(total) for _, total, _ in steps} == {len(steps)}
    assert len({name for _, _, name in steps}) == len(steps) == 11


def test_the_folder_holds_the_artifacts_and_their_manifests(pair, document: dict):
    names = {path.name for path in pair[0].parent.iterdir()}
    assert names == {f"{NAME}-int8.{end}" for end in ("pte", "onnx", "pte.json", "onnx.json")}
    for artifact, described in zip(pair, document["artifacts"], strict=True):
        manifest = json.loads(artifact.with_name(artifact.name + ".json").read_text())
        assert artifact.stat().st_size == described["size_bytes"]
        assert described["sha256"] in json.dumps(manifest)


def test_both_formats_give_the_same_logits(document: dict):
    exact = [
        comparison
        for rung in document["parity"]["rungs"]
        for comparison in rung["comparisons"]
        if rung["artifact"] and comparison["reference"] in ("integers", "onnx")
    ]
    assert len(exact) == 3  # each with the integer reference, and with one another
    assert all(comparison["metrics"]["differing_logits"] == 0 for comparison in exact)
    assert all(comparison["metrics"]["logits"] == 8 * 10 for comparison in exact)


def test_random_weights_are_marked_on_stderr_in_the_name_and_in_the_manifest(exported, pair):
    assert "Random weights: good for latency and size only" in exported.stderr
    for artifact in pair:
        assert "-random" in artifact.name
        manifest = json.loads(artifact.with_name(artifact.name + ".json").read_text())
        assert manifest["weights"]["source"] == "random"


@pytest.mark.ci
def test_the_same_command_twice_gives_the_same_bytes(export, pair, workplace: Path):
    assert export("second").returncode == 0
    for artifact in pair:
        again = workplace / "second" / artifact.name
        assert again.read_bytes() == artifact.read_bytes()


@pytest.mark.ci
def test_the_table_of_a_float_export_fits_in_80_columns(mobiledeploy, workplace: Path):
    done = mobiledeploy(
        *("export", "v2", *NETWORK, "--format", "onnx", "--out", "float"), cwd=workplace
    )
    assert done.returncode == 0, done.stderr
    assert (workplace / "float" / f"{NAME}-fp32.onnx").stat().st_size > 0
    assert f"Next: mobiledeploy bench float/{NAME}-fp32.onnx" in done.stderr
    table, verdict, _ = done.stdout.partition("Parity holds on ")
    assert verdict
    assert table.startswith(f"{NAME}-fp32\n")
    assert max(map(len, table.splitlines())) <= 80
    assert " 7/7 " in done.stderr


@pytest.mark.ci
def test_a_failed_gate_keeps_the_earlier_artifact_and_prints_the_failure_last(
    mobiledeploy, workplace: Path
):
    command = ("export", "v2", "--int8", *NETWORK, "--format", "onnx", "--out", "gate")
    command += ("--calib-samples", 8, "--ptq", "fast", "--keep-float", 1)
    assert mobiledeploy(*command, cwd=workplace).returncode == 0
    earlier = {path: path.read_bytes() for path in (workplace / "gate").iterdir()}
    artifact = next(path for path in earlier if path.suffix == ".onnx")
    done = mobiledeploy(*command, "--min-int8-coverage", 1, cwd=workplace)
    assert done.returncode == 1
    assert {path: path.read_bytes() for path in earlier} == earlier
    failed = artifact.with_name(f"{artifact.stem}.failed.onnx")
    assert {*earlier, failed, Path(f"{failed}.json")} == set((workplace / "gate").iterdir())
    assert f"The earlier gate/{artifact.name} was not replaced" in done.stdout
    *_, following, error, remedy = done.stderr.splitlines()
    assert following.startswith(f"Next: mobiledeploy inspect gate/{failed.name}")
    assert error.startswith(f"Error: {failed.name} computes")
    assert remedy.startswith("Try: ")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, id="a CI job's limit", marks=pytest.mark.ci),
        pytest.param(signal.SIGHUP, 129, id="a closed terminal", marks=pytest.mark.ci),
    ],
)
def test_a_stopped_export_leaves_no_incomplete_file(
    console_script: Path, offline_environment, workplace: Path, number, code
):
    command = [console_script, "export", "v2", "--int8", *map(str, NETWORK)]
    command += ["--calib-data", "pictures", "--out", "stopped"]
    with subprocess.Popen(
        command, cwd=workplace, env=offline_environment, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if "Quantizing to int8 " in line:  # done: lowering, the longest step, has begun
                break
        time.sleep(0.5)
        process.send_signal(number)
        rest = process.stderr.read()
    assert process.returncode == code
    assert "Stopped" in rest
    assert "Traceback" not in rest
    folder = workplace / "stopped"
    assert not folder.exists() or not list(folder.iterdir())


def test_the_api_writes_the_same_bytes(tmp_path: Path, workplace: Path, pair):
    import mobiledeploy

    model = mobiledeploy.build("v2", config=CONFIG)
    images = mobiledeploy.load_images(model, workplace / "pictures")
    deployment = mobiledeploy.deploy(model, formats=["onnx"], calibration=images, out=tmp_path)
    assert deployment.parity is not None
    assert deployment.parity.passed
    assert deployment.artifacts[0].path.read_bytes() == pair[1].read_bytes()
    assert images.images.shape == (8, 3, 32, 32)
