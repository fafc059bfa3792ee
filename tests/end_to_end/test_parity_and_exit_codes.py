"""Exit codes: 0 ok, 1 a gate failed, 2 usage, 3 could not be loaded, 4 a runtime or a device."""

import json
import os
import sys
from pathlib import Path

import pytest
from refusals import refused
from tiny import CONFIG, NETWORK


@pytest.mark.ci
def test_parity_of_the_exported_pair_holds(mobiledeploy, pair, workplace: Path):
    device = f"exec:{sys.executable}"
    done = mobiledeploy("parity", *pair, "--device", device, "--json", "-", cwd=workplace)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["passed"] is True
    assert report["data"]["count"] == 8
    assert report["device"].startswith(device)
    assert report["data"]["calibration"] is True
    names = ["float", "fold", "equalize", "integers", "any-rounding"]
    names += ["onnx-unoptimized", "onnx", "pte"]
    assert [rung["name"] for rung in report["rungs"]] == [*names, "device", "device"]
    for rung in report["rungs"][5:]:
        exact = next(c for c in rung["comparisons"] if c["reference"] == "integers")
        assert exact["metrics"]["differing_logits"] == 0
        assert exact["limits"] == {"max_differing_logits": 0}
    assert "Parity holds." in done.stderr  # stdout belongs to the document


@pytest.mark.ci
def test_an_sqnr_out_of_reach_fails_the_gate(mobiledeploy, tmp_path: Path, workplace: Path):
    """SQNR is checked for a checkpoint only: random weights have no accuracy to lose."""
    checkpoint = tmp_path / "own.pth"
    trained_checkpoint(checkpoint)
    options = (*NETWORK, "--calib-data", "pictures", "--format", "onnx")
    made = mobiledeploy(
        *("export", "v2", "--int8", "--weights", checkpoint, *options, "--no-parity"),
        *("--out", "own", "--json"),
        cwd=workplace,
    )
    assert made.returncode == 0, made.stderr
    artifact = json.loads(made.stdout)["artifacts"][0]["path"]
    done = mobiledeploy("parity", artifact, "--min-sqnr", 99, cwd=workplace)
    refused(done, 1, "Parity failed at the rung 'integers'", "SQNR is", "expected at least 99 dB")
    assert "Parity FAILED" in done.stdout
    assert done.stderr.splitlines()[-2].startswith("Error: ")
    # paths in a manifest are found from the folder of the export and from any other
    undemanding = ("--min-sqnr", 0, "--min-agreement", 0)
    assert mobiledeploy("parity", artifact, *undemanding, cwd=workplace).returncode == 0
    elsewhere = mobiledeploy("parity", workplace / artifact, *undemanding, cwd=tmp_path)
    assert elsewhere.returncode == 0, elsewhere.stderr


def trained_checkpoint(path: Path) -> None:
    """Save the tiny network as a checkpoint. It is not trained, which does not matter here."""
    import torch

    from mobiledeploy import build

    module = build(config=CONFIG).module
    torch.save(module.state_dict(), path)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["v9"], "There is no model 'v9'"),
        (["v2", "--bogus"], "No such option"),
        (["v2", "--format", "coreml"], "coreml"),
        (["v2", "--width", "-1"], "width is -1.0"),
        (["v2", "--weights", "random", "--calib-data", "pictures"], "--calib-data"),
        (["v2", "--weights", "random", "--ptq", "best"], "--ptq needs --int8"),
        (["v2", "--int8", "--weights", "random", "--ptq", "good"], "'good'"),
        (["v2", "--weights", "random", "--mean", "a,b,c"], "--mean is 'a,b,c'"),
    ],
)
def test_usage_errors_exit_with_2(mobiledeploy, workplace: Path, arguments, message):
    refused(mobiledeploy("export", *arguments, cwd=workplace), 2, message)


@pytest.mark.ci
def test_a_checkpoint_that_is_missing_or_truncated(mobiledeploy, tmp_path: Path):
    refused(mobiledeploy("export", "v2", "--weights", "none.pth", cwd=tmp_path), 3, "none.pth")
    whole = tmp_path / "whole.pth"
    trained_checkpoint(whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    refused(mobiledeploy("export", "v2", "--weights", "cut.pth", cwd=tmp_path), 3, "cut.pth")


@pytest.mark.ci
def test_a_folder_without_images(mobiledeploy, tmp_path: Path):
    (tmp_path / "nothing").mkdir()
    arguments = ("export", "v2", "--int8", *NETWORK, "--calib-data", "nothing")
    refused(mobiledeploy(*arguments, cwd=tmp_path), 3, "nothing")


@pytest.mark.ci
def test_without_network_and_cache_the_alternatives_are_named(mobiledeploy, tmp_path: Path):
    done = mobiledeploy("export", "v2", "--int8", cwd=tmp_path)
    refused(done, 3, "MOBILEDEPLOY_CACHE", "--weights PATH", "--weights random")
    assert not (tmp_path / "exports").exists()


@pytest.mark.parametrize("command", ["parity", "inspect", "bench"])
def test_an_artifact_that_is_missing(mobiledeploy, tmp_path: Path, command: str):
    refused(mobiledeploy(command, "none.pte", cwd=tmp_path), 3, "There is no file none.pte")
    (tmp_path / "folder.pte").mkdir()
    refused(mobiledeploy(command, "folder.pte", cwd=tmp_path), 3, "folder.pte is a folder")


@pytest.mark.ci
def test_a_corrupt_manifest(mobiledeploy, copied: Path, workplace: Path):
    manifest = copied.with_name(copied.name + ".json")
    manifest.write_text(manifest.read_text()[:100])
    refused(mobiledeploy("parity", copied, cwd=workplace), 3, "manifest", "damaged")


@pytest.mark.ci
def test_an_out_folder_that_is_a_file(mobiledeploy, workplace: Path, tmp_path: Path):
    occupied = tmp_path / "occupied"
    occupied.write_text("mine")
    arguments = ("export", "v2", *NETWORK, "--format", "onnx", "--out", occupied)
    refused(mobiledeploy(*arguments, cwd=workplace), 4, f"Could not write {occupied}{os.sep}"[:60])
    assert occupied.read_text() == "mine"


@pytest.mark.ci
@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--device", "toaster"], 2, "'toaster' is not a device"),
        (["--device", "exec:false"], 4, "exec:false"),
        (["--html", "occupied/report.html"], 4, "Could not write occupied"),
        (["--baseline", "none.json"], 3, "Could not read the baseline none.json"),
        (["--baseline", "other.json"], 3, "expected 'mobiledeploy.parity'"),
    ],
    ids=["no-device", "broken-device", "unwritable", "no-baseline", "other-baseline"],
)
def test_parity_refuses_options_before_the_work(
    mobiledeploy, pair, workplace: Path, options, code: int, message: str
):
    (workplace / "occupied").write_text("mine")
    (workplace / "other.json").write_text("{}")
    done = mobiledeploy("parity", pair[1], *options, cwd=workplace)
    refused(done, code, message)
    assert "Folding BatchNorm" not in done.stderr


@pytest.mark.ci
def test_compare_shows_the_accuracy_that_the_manifests_record(pair, mobiledeploy, workplace):
    done = mobiledeploy("bench", *pair, "--runs", 3, "--json", "bench.json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    done = mobiledeploy("compare", "bench.json", "--json", cwd=workplace)
    rows = json.loads(done.stdout)["rows"]
    assert [row["artifact"] for row in rows] == [path.name for path in pair]
    assert all(row["sqnr_db"] > 5 and 0 < row["agreement"] <= 1 for row in rows)
