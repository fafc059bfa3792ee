"""Operators timed on a device: the same ones as here, real times; or a clear no."""

import json
import sys

import numpy as np
import pytest

from mobiledeploy.bench.profile import profile, profile_on
from mobiledeploy.cli import _run
from mobiledeploy.devices.agent.operators import time_kernels
from mobiledeploy.devices.open import open_device
from mobiledeploy.errors import ArtifactError, RuntimeFailedError, UsageError

HERE = f"exec:{sys.executable}"


@pytest.mark.parametrize("artifact", ["int8_onnx", "int8_pte"])
def test_a_device_tells_the_same_operators_as_this_machine(artifact, request):
    path = request.getfixturevalue(artifact)
    here = profile(path, runs=3)
    with open_device(HERE) as device:
        there = profile_on(device, path, runs=7)
        assert device.host.label in there.runtime
    assert len(there.operators) > 5
    for found, expected in zip(there.operators, here.operators, strict=True):
        assert found.kind == expected.kind
        assert found.name == expected.name
    assert there.method.split(" less ")[0] == here.method.split(" less ")[0]
    assert there.whole_us > 0
    assert np.min([o.median_us for o in there.operators]) >= 0
    # alone, tiny operators may take no longer than a call that does nothing
    assert there.sum_us > 0 or " less " in there.method


def test_the_command_profiles_on_a_device_and_writes_documents(int8_onnx, tmp_path, capsys):
    result, trace = tmp_path / "profile.json", tmp_path / "trace.json"
    documents = ["--json", str(result), "--trace", str(trace)]
    command = ["bench", str(int8_onnx), "--profile", "--runs", "3", "--device", HERE]
    assert _run([*command, *documents]) == 0
    said = capsys.readouterr().err
    assert "QLinearConv" in said
    assert "These are latencies of an x86 processor" in " ".join(said.split())
    (entry,) = json.loads(result.read_text())["profiles"]
    assert HERE in entry["runtime"]
    assert len(json.loads(trace.read_text())["traceEvents"]) > len(entry["by_kind"])


def test_a_profile_in_which_runs_are_missing_is_not_believed(int8_onnx, monkeypatch):
    """ONNX Runtime stops to write events when their memory is full."""
    from mobiledeploy.devices.agent import runtimes

    events = runtimes.ProfiledOnnxRuntime.events

    def all_but_one(self):
        *rest, _ = (event for event in events(self) if event.get("cat") == "Node")
        return rest

    monkeypatch.setattr(runtimes.ProfiledOnnxRuntime, "events", all_but_one)
    artifact = {"file": int8_onnx.name, "label": "net", "inputs": None}
    request = {"artifacts": [artifact], "threads": 1, "rounds": 2, "warmup": 1}
    runner = runtimes.open_runner(artifact, str(int8_onnx.parent), 1)
    batch = np.zeros((1, *runner.input_shape), np.float32)
    with pytest.raises(Exception, match=r"tells 2 runs of .*; there were 3"):
        time_kernels(request, str(int8_onnx.parent), batch, lambda: None, lambda _: None)


def test_what_cannot_be_profiled_on_a_device_is_told(int8_pte, int8_onnx, portable_pte):
    with open_device(HERE) as device:
        with pytest.raises(ArtifactError, match="no operator that could be timed"):
            profile_on(device, portable_pte)
        with pytest.raises(UsageError, match="0 runs on 1 threads"):
            profile_on(device, int8_onnx, runs=0)
    bare = f"exec:{sys.executable} -S"
    with open_device(bare) as device, pytest.raises(RuntimeFailedError, match="executorch"):
        profile_on(device, int8_pte)


def test_native_programs_do_not_tell_of_operators(phone, int8_pte, capsys):
    assert _run(["bench", str(int8_pte), "--profile", "--device", "adb://"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "native programs, which do not tell of operators" in said
    assert phone.serial
