"""Reports to render: one that holds, one that fails, with text that wants to be escaped."""

import math
from dataclasses import replace

import pytest

from mobiledeploy.parity.compare import figures
from mobiledeploy.parity.ladder import EXACT
from mobiledeploy.parity.types import (
    Compared,
    Comparison,
    DataUsed,
    Guess,
    ImageError,
    LayerError,
    ParityReport,
    Rung,
)

HOSTILE = "<script>alert('x')</script>|*_`&\"\x07"


def comparison(reference, candidate, expected, *, limits=(), failures=()):
    found = figures(expected, candidate, 0.125)
    return Comparison(
        reference=reference, metrics=found, limits=dict(limits), failures=tuple(failures)
    )


def make_report():
    import numpy as np

    exact = np.random.default_rng(0).integers(-9, 9, (20, 6)).astype(np.float32) / 8
    lossy = exact + np.float32(0.125) * (np.arange(6) == 2)
    data = DataUsed(source="photos", count=20, sha256="c0", labelled=True, calibration=False)
    sha256 = "ab" * 32
    loss = comparison("float", lossy, exact, limits={"min_sqnr_db": 12.0}.items())
    rungs = (
        Rung(name="float", title="float PyTorch", accuracy=0.5, seconds=1.25),
        Rung(name="integers", title="integer reference", comparisons=(loss,), accuracy=0.45),
        Rung(
            name="onnx",
            title="ONNX Runtime",
            artifact="net-int8.onnx",
            comparisons=(
                comparison("integers", lossy, lossy, limits=EXACT.items()),
                comparison("float", lossy, exact),
            ),
            accuracy=0.45,
            seconds=0.5,
        ),
    )
    guesses = (Guess(label=HOSTILE, probability=0.75), Guess(label="cat", probability=0.25))
    return ParityReport(
        network="net",
        precision="int8",
        data=data,
        artifacts=(
            Compared(file="net-int8.onnx", sha256=sha256, size_bytes=1234, runtime="onnxruntime 1"),
        ),
        rungs=rungs,
        layers=(
            LayerError(name="stem conv2d", sqnr_db=30.0, own_sqnr_db=31.0, gained_db=5.0),
            LayerError(name="pool", sqnr_db=30.0, own_sqnr_db=math.inf, gained_db=0.0),
            LayerError(name="head linear", sqnr_db=20.0, own_sqnr_db=25.0, gained_db=10.0),
        ),
        worst_images=(
            ImageError(
                name=HOSTILE,
                margin=0.5,
                kl_divergence=0.1,
                truth="cat",
                float_top=guesses,
                top=guesses[::-1],
                thumbnail=b"RIFF",
            ),
        ),
    )


@pytest.fixture
def report():
    found = make_report()
    assert found.passed
    return found


@pytest.fixture
def failing(report):
    """The same, with a logit that differs and a name that wants to be escaped."""
    onnx = report.rungs[2]
    exact = replace(onnx.comparisons[0], failures=(f"1 of 120 logits differ: {HOSTILE}",))
    broken = replace(onnx, comparisons=(exact, onnx.comparisons[1]), first_layer="stem conv2d")
    return replace(report, network=HOSTILE, rungs=(*report.rungs[:2], broken))
