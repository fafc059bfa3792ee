"""A device's outputs against this machine's: what differs is counted, and a wrong network fails."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from mobiledeploy.bench.measure import measure
from mobiledeploy.bench.outputs import check_outputs, require_outputs
from mobiledeploy.bench.results import Measurement, OutputCheck
from mobiledeploy.devices.python_device import CommandDevice
from mobiledeploy.errors import GateError, RuntimeFailedError

ROW = np.arange(1, 11, dtype=np.float32).reshape(2, 5)


def test_equal_outputs_have_no_noise():
    assert check_outputs(ROW, [ROW, ROW.copy()]) == OutputCheck(
        values=20, differing=0, sqnr_db=math.inf
    )


def test_what_differs_in_one_session_only_is_counted():
    other = ROW.copy()
    other[0, 0] += 1
    found = check_outputs(ROW, [ROW, other])
    assert (found.values, found.differing) == (20, 1)
    assert found.sqnr_db == pytest.approx(10 * math.log10(2 * 385 / 1))


@pytest.mark.parametrize("found", [[], [ROW[:1]], [ROW, ROW[:, :1]]])
def test_outputs_of_another_shape_or_none_cannot_be_compared(found):
    with pytest.raises(RuntimeFailedError, match="shape"):
        check_outputs(ROW, found)


def test_comparing_nothing_fails():
    nothing = np.zeros((0, 5), np.float32)
    with pytest.raises(RuntimeFailedError):
        check_outputs(nothing, [nothing])


def measurement(sqnr_db):
    return Measurement(
        artifact="net.onnx",
        artifact_sha256="",
        runtime="",
        device="ssh://pi",
        threads=1,
        warmup=0,
        times_ms=(1.0, 1.0),
        load_ms=1,
        first_ms=1,
        peak_memory_bytes=1,
        outputs=OutputCheck(values=10, differing=4, sqnr_db=sqnr_db),
    )


def test_rounding_passes_and_a_wrong_network_does_not():
    require_outputs([measurement(90.0), measurement(math.inf)])
    require_outputs([measurement(20.0)], min_sqnr_db=15)
    require_outputs([replace(measurement(0.0), outputs=None)])  # nothing but this machine
    for wrong in (20.0, math.nan):
        with pytest.raises(GateError, match=r"ssh://pi does not .*net.onnx: 4 of 10 outputs"):
            require_outputs([measurement(90.0), measurement(wrong)])


def test_a_device_that_computes_something_else_is_found_out(float_onnx, tmp_path):
    """Its ONNX Runtime is made to answer as a miscompiled one would: fast, and wrong."""
    (tmp_path / "sitecustomize.py").write_text(
        "import onnxruntime\n"
        "run = onnxruntime.InferenceSession.run\n"
        "onnxruntime.InferenceSession.run = lambda *a: [-x for x in run(*a)]\n"
    )
    honest = f"exec:env PYTHONPATH= {sys.executable}"
    wrong = f"exec:env PYTHONPATH={tmp_path} {sys.executable}"
    with CommandDevice(honest) as device:
        [good] = measure([float_onnx], device=device, runs=3, warmup=0)
    assert (good.outputs.values, good.outputs.differing) == (3 * 2 * 10, 0)
    assert good.device.startswith(honest)
    with CommandDevice(wrong) as device:
        [bad] = measure([float_onnx], device=device, runs=3, warmup=0)
    assert bad.outputs.differing == bad.outputs.values
    with pytest.raises(GateError):
        require_outputs([bad])
