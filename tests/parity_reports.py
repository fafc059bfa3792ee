"""Reports to render: one that passes, and one that fails with text that must be escaped."""

import math

import numpy as np

from mobiledeploy.parity.compare import compare_logits
from mobiledeploy.parity.ladder import EXACT
from mobiledeploy.parity.types import (
    ComparedArtifact,
    Comparison,
    DataUsed,
    LayerNoise,
    ParityReport,
    Prediction,
    Rung,
    WorstImage,
)

HOSTILE = "<script>alert('x')</script>|*_`&\"\x07"


def with_(model, **changes):
    """Return a copy of a model with other values."""
    return model.model_copy(update=changes)


def comparison(reference, candidate, expected, *, limits=(), failures=()):
    found = compare_logits(expected, candidate, 0.125)
    return Comparison(
        reference=reference, metrics=found, limits=dict(limits), failures=tuple(failures)
    )


def make_report():
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
    predictions = (
        Prediction(label=HOSTILE, probability=0.75),
        Prediction(label="cat", probability=0.25),
    )
    return ParityReport(
        network="net",
        float_bytes=4936,
        precision="int8",
        data=data,
        artifacts=(
            ComparedArtifact(
                file="net-int8.onnx", sha256=sha256, size_bytes=1234, runtime="onnxruntime 1"
            ),
        ),
        rungs=rungs,
        layers=(
            LayerNoise(name="stem conv2d", sqnr_db=30.0, own_sqnr_db=31.0, sqnr_drop_db=5.0),
            LayerNoise(name="pool", sqnr_db=30.0, own_sqnr_db=math.inf, sqnr_drop_db=0.0),
            LayerNoise(name="head linear", sqnr_db=20.0, own_sqnr_db=25.0, sqnr_drop_db=10.0),
        ),
        worst_images=(
            WorstImage(
                name=HOSTILE,
                margin=0.5,
                kl_divergence=0.1,
                label="cat",
                float_top5=predictions,
                top5=predictions[::-1],
                thumbnail=b"RIFF",
            ),
        ),
    )


def make_failing():
    """Return the same report with a differing logit, and a network whose name must be escaped."""
    report = make_report()
    onnx = report.rungs[2]
    failures = (f"1 of 120 logits differ: {HOSTILE}",)
    exact = with_(onnx.comparisons[0], failures=failures)
    broken = with_(
        onnx,
        comparisons=(exact, onnx.comparisons[1]),
        failures=failures,
        first_differing_layer="stem conv2d",
    )
    return with_(report, network=HOSTILE, rungs=(*report.rungs[:2], broken))
