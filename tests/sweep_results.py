"""Results of a sweep as they are stored, for tests of what is shown of them."""

from mobiledeploy.sweep.pick import Budget, ranked, rows_of
from mobiledeploy.sweep.points import Point
from mobiledeploy.sweep.store import MeasuredArtifact, Result

DEVICES = ("local", "ssh://pi@raspberrypi.local:22")
HOSTILE = "<img src=x onerror=alert(1)>&.pth"


def result(model, resolution, top1, latency, size, *, weights="", formats=("onnx", "pte")):
    artifacts = tuple(
        MeasuredArtifact(
            path=f"sweep/{model}-fast-{resolution}/{model}.{suffix}",
            sha256=f"{model}{resolution}{suffix}",
            size_bytes=size + 1000 * number,
            macs=resolution * 1_000_000,
            sqnr_db=20.0 + resolution / 10,
            agreement=0.9,
            top1=top1,
            latency_ms={DEVICES[0]: latency + number, DEVICES[1]: 4 * latency + number},
        )
        for number, suffix in enumerate(formats)
    )
    point = Point(model=model, resolution=str(resolution), ptq="fast", weights=weights)
    return Result(point=point, state="done", artifacts=artifacts)


RESULTS = (
    result("v2", 96, 0.61, 1.5, 1_000_000),
    result("v2", 160, 0.70, 4.0, 2_000_000),
    result("v3-small", 96, 0.55, 0.9, 900_000),
    result("v3-small", 160, 0.62, 2.5, 1_900_000, weights=HOSTILE),
    Result(point=Point(model="v1"), state="failed", error="no <b>room</b>"),
)
BUDGET = Budget(max_latency_ms=13)  # misses the .pte and the .onnx of v2 at 160 pixels


def shown(results=RESULTS, budget=BUDGET):
    """Return the results, their rows, and the rows within the budget, the best first."""
    rows = rows_of(results, budget)
    return results, rows, ranked(rows)
