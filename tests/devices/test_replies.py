"""What a broken or hostile device sends is refused, whatever it is."""

import base64
import json

import numpy as np
import pytest

from mobiledeploy.bench.measure import measure
from mobiledeploy.devices.agent.machine import describe
from mobiledeploy.devices.open import run_artifact
from mobiledeploy.devices.python_device import PythonDevice
from mobiledeploy.devices.request import to_npy
from mobiledeploy.errors import RuntimeFailedError

HELLO = describe()


def as_text(value):
    """Return a value as the protocol sends arrays."""
    array = np.array([value]) if isinstance(value, str) else np.array(value)
    return base64.b64encode(to_npy(array)).decode()


@pytest.fixture
def device(tmp_path):
    """Return a function: messages -> a device that sends them, whatever it is asked."""

    def sends(*messages):
        path = tmp_path / "messages"
        records = [each if isinstance(each, str) else json.dumps(each) for each in messages]
        path.write_text("".join(f"\x1e{record}\n" for record in records))
        return PythonDevice("exec:cat", ["cat", str(path)])

    return sends


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        (["no JSON"], "Expecting value"),
        (["[" * 5000], "exec:cat sent a message"),
        ([[1]], "exec:cat sent a message"),
        ([{"hello": 5}], "exec:cat sent a message"),
        ([{"hello": {}}], "protocol"),
        ([{"hello": HELLO | {"cores": "many"}}], "`hello.cores`"),
        ([{"hello": HELLO | {"hwcap": [None]}}], "`hello.hwcap"),
        ([{"error": {"type": "re", "message": "", "remedy": ""}}], "KeyError"),
        ([{"error": {"type": "_CREDENTIALS", "message": "", "remedy": ""}}], "KeyError"),
        ([{"error": {"type": "DataError", "message": 5, "remedy": ""}}], "TypeError"),
        ([{"died": "why"}], "exec:cat sent a message"),
        ([{"result": {}}], "did not begin with `hello`"),
    ],
)
def test_a_host_that_makes_no_sense_is_refused(messages, problem, device):
    with pytest.raises(RuntimeFailedError) as caught:
        _ = device(*messages).host
    assert problem in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("result", "problem"),
    [
        ({}, "no `inputs`"),
        ([], "`result`"),
        ({"inputs": [None], "outputs": []}, "arrays of 0 artifacts for 1"),
        ({"inputs": [None], "outputs": [[]]}, "`outputs` has no array of an artifact"),
        ({"inputs": [None], "outputs": [["AAAA"]]}, "`outputs` is no array"),
        ({"inputs": [None], "outputs": [["!"]]}, "`outputs` is no array"),
        ({"inputs": [None], "outputs": [[as_text("a label")]]}, "`outputs` is <U7 (1,); expected"),
        ({"inputs": [None], "outputs": [[as_text(1j)]]}, "`outputs` is complex128 (1,); expected"),
        ({"inputs": [None], "outputs": [None]}, "`outputs` has no array of an artifact"),
        ({"inputs": [None], "outputs": ["AAAA"]}, "`result.outputs.0`"),
        ({"inputs": [None], "outputs": [[5]]}, "`result.outputs.0.0`"),
        ({"inputs": ["AAAA"], "outputs": [[as_text(5)]]}, "`inputs` is no array"),
    ],
)
def test_outputs_that_make_no_sense_are_refused(result, problem, device, float_onnx):
    sent = device({"hello": HELLO}, {"result": result})
    with pytest.raises(RuntimeFailedError) as caught:
        run_artifact(sent, float_onnx, np.zeros((1, 3, 32, 32), np.float32))
    assert problem in caught.value.message


@pytest.mark.parametrize("progress", [-1, 1.5, 1e300, float("nan"), "half"])
def test_progress_beyond_its_range_is_refused(progress, device, float_onnx):
    sent = device({"hello": HELLO}, {"progress": progress}, {"result": {}})
    with pytest.raises(RuntimeFailedError, match="`progress`"):
        run_artifact(sent, float_onnx, np.zeros((1, 3, 32, 32), np.float32))


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        ([], "times of 0 of 1 artifacts"),
        ([[]], "no times"),
        ([[1.0], [2.0]], "times of 2 of 1 artifacts"),
        ([[-1.0, 2.0]], "negative"),
        ([["x"]], "`result.times_ms.0.0`"),
    ],
)
def test_times_that_make_no_sense_are_refused(times, problem, device, float_onnx):
    conditions = {"before": HELLO["conditions"], "after": HELLO["conditions"]}
    fresh = {"runtime": "x", "load_ms": 1.0, "first_ms": 1.0, "peak_memory_bytes": None}
    result = {"fresh": fresh, "times_ms": times, "conditions": conditions, "outputs": [None]}

    class Local(PythonDevice):
        is_local = True

    sent = device({"hello": HELLO}, {"result": result})
    sent.__class__ = Local
    with pytest.raises(RuntimeFailedError) as caught:
        measure([float_onnx], device=sent, runs=2)
    assert problem in caught.value.message
