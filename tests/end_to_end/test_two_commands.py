"""Two commands that write to one folder at the same time."""

import hashlib
import json
import subprocess

import pytest
from tiny import NETWORK


@pytest.mark.ci
def test_two_exports_to_one_folder_leave_files_that_belong_together(
    console_script, offline_environment, workplace, tmp_path
):
    command = [console_script, "export", "v2", "--int8", *NETWORK, "--ptq", "fast", "--no-parity"]
    command += ["--calib-data", "pictures", "--format", "tflite", "--out", tmp_path]
    command += ["--calib-samples"]
    processes = [
        subprocess.Popen(
            [*map(str, command), images],
            cwd=workplace,
            env=offline_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for images in ("4", "8")
    ]
    texts = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    (artifact,) = tmp_path.glob("*.tflite")
    manifest = artifact.with_name(f"{artifact.name}.json")
    assert sorted(tmp_path.iterdir()) == [artifact, manifest]
    digest = hashlib.sha256(artifact.read_bytes()).hexdigest()
    assert json.loads(manifest.read_text())["artifact"]["sha256"] == digest
