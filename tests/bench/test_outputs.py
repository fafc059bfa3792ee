"""A device's outputs are compared with this machine's, and wrong outputs fail."""

import math
import sys

import numpy as np
import pytest
from bench_results import measurement

from mobiledeploy.bench.measure import measure
from mobiledeploy.bench.outputs import check_outputs, require_outputs
from mobiledeploy.bench.results import OutputCheck
from mobiledeploy.devices.python_device import CommandDevice
from mobiledeploy.errors import GateError, RuntimeFailedError

ROW = np.arange(1, 11, dtype=np.float32).reshape(2, 5)


def test_equal_outputs_have_no_noise():
    assert check_outputs((ROW,), [(ROW,), (ROW.copy(),)]) == OutputCheck(
        values=20, differing=0, sqnr_db=math.inf
    )


def test_a_difference_in_one_session_is_counted():
    other = ROW.copy()
    other[0, 0] += 1
    found = check_outputs((ROW,), [(ROW,), (other,)])
    assert (found.values, found.differing) == (20, 1)
    varying = 2 * 5 * 2.5**2  # of each session; the rows differ by 5
    assert found.sqnr_db == pytest.approx(10 * math.log10(2 * varying / 1))


@pytest.mark.parametrize("found", [[], [ROW[:1]], [ROW, ROW[:, :1]]])
def test_missing_outputs_and_other_shapes_are_errors(found):
    with pytest.raises(RuntimeFailedError, match=r"expected float32 \(2, 5\)"):
        check_outputs((ROW,), [(each,) for each in found])


def test_comparing_nothing_is_an_error():
    nothing = np.zeros((0, 5), np.float32)
    with pytest.raises(RuntimeFailedError):
        check_outputs((nothing,), [(nothing,)])


def test_outputs_of_another_type_or_number_are_errors():
    for found in ([(ROW.astype(np.int64),)], [(ROW, ROW)], [()]):
        with pytest.raises(RuntimeFailedError, match=r"expected float32 \(2, 5\)"):
            check_outputs((ROW,), found)


def test_wrong_probabilities_show_beside_large_classes():
    classes = np.int64([[0, 999], [7, 500]])
    probabilities = np.float32([[0.6, 0.2], [0.5, 0.4]])
    wrong = probabilities[::-1]
    found = check_outputs((classes, probabilities), [(classes, wrong)])
    assert (found.values, found.differing) == (8, 4)
    assert found.sqnr_db < 0
    others = check_outputs((classes, probabilities), [(classes[::-1], probabilities)])
    assert (others.differing, others.sqnr_db < 0) == (4, True)


def test_codes_are_subtracted_without_overflow():
    codes = np.uint8([[0, 255, 3], [9, 100, 250]])
    other = codes.copy()
    other[0, 0] = 255
    found = check_outputs((codes,), [(other,)])
    signal = sum((codes - codes.mean(0)).ravel() ** 2)
    assert found.sqnr_db == pytest.approx(10 * math.log10(signal / 255**2))


def test_a_nan_among_the_outputs_is_not_hidden():
    codes = np.int8([[1, 2], [3, 4]])
    found = check_outputs((codes, ROW), [(codes, ROW * np.float32("nan"))])
    assert math.isnan(found.sqnr_db)


def result(sqnr_db):
    check = OutputCheck(values=10, differing=4, sqnr_db=sqnr_db)
    return measurement("net.onnx", outputs=check)


def test_rounding_passes_and_wrong_outputs_fail():
    require_outputs([result(90.0), result(math.inf)])
    require_outputs([result(20.0)], min_sqnr_db=15)
    require_outputs([measurement(outputs=None)])  # measured on this machine
    for wrong in (20.0, math.nan):
        with pytest.raises(GateError, match=r"ssh://pi .* differ from .*net.onnx: 4 of 10 outputs"):
            require_outputs([result(90.0), result(wrong)])


def test_wrong_outputs_of_a_device_are_detected(float_onnx, tmp_path):
    """Its ONNX Runtime returns wrong outputs, as a miscompiled one would."""
    (tmp_path / "sitecustomize.py").write_text(
        "import onnxruntime\n"
        "run = onnxruntime.InferenceSession.run\n"
        "onnxruntime.InferenceSession.run = lambda *a: [-x for x in run(*a)]\n"
    )
    correct = f"exec:env PYTHONPATH= {sys.executable}"
    wrong = f"exec:env PYTHONPATH={tmp_path} {sys.executable}"
    with CommandDevice(correct) as device:
        [good] = measure([float_onnx], device=device, runs=3, warmup=0)
    assert (good.outputs.values, good.outputs.differing) == (3 * 2 * 10, 0)
    assert good.device.startswith(correct)
    with CommandDevice(wrong) as device:
        [bad] = measure([float_onnx], device=device, runs=3, warmup=0)
    assert bad.outputs.differing == bad.outputs.values
    with pytest.raises(GateError):
        require_outputs([bad])
