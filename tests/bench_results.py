"""Results of `bench` for the tests of what reads them."""

import random

from mobiledeploy.bench.json_report import InstructionsResult, TimesResult, to_document
from mobiledeploy.bench.results import InstructionCount, Measurement, OutputCheck
from mobiledeploy.devices.host import Host

HOST = Host(
    architecture="aarch64",
    model="Pi 5",
    cores=4,
    features=frozenset({"dotprod"}),
    uri="ssh://pi",
    os="an OS",
    runtimes={"onnxruntime": "1"},
    conditions={"governor": "performance"},
)
EQUAL = OutputCheck(values=20, differing=0, sqnr_db=float("inf"))


def times(median: float, spread: float = 0.02, count: int = 60, seed: int = 0) -> tuple[float, ...]:
    """Return times around a median."""
    generator = random.Random(seed)
    return tuple(median * (1 + spread * generator.uniform(-1, 1)) for _ in range(count))


def measurement(artifact: str = "a.onnx", times_ms=(1.0, 2.0, 4.0), **changes) -> Measurement:
    """Return a measurement of one artifact; its sha256 is its path."""
    fields = {
        "artifact": artifact,
        "artifact_sha256": artifact,
        "runtime": "onnxruntime 1",
        "device": HOST.label,
        "threads": 1,
        "warmup": 4,
        "times_ms": tuple(times_ms),
        "load_ms": 5.0,
        "first_ms": 6.0,
        "peak_memory_bytes": 7,
    }
    return Measurement(**(fields | changes))


def timed(*measurements: Measurement, host: Host = HOST) -> TimesResult:
    """Return the document of a run of `bench`."""
    document = to_document(measurements, host)
    assert isinstance(document, TimesResult)
    return document


def counted(*counts: tuple[str, int], host: Host = HOST) -> InstructionsResult:
    """Return the document of a run of `bench --count-instructions`: paths and their medians."""
    entries = [
        InstructionCount(
            artifact=artifact,
            artifact_sha256=artifact,
            runtime="onnxruntime 1",
            device=host.label,
            threads=1,
            warmup=2,
            instructions=(count - 9, count, count + 99),
            outputs=EQUAL,
        )
        for artifact, count in counts
    ]
    document = to_document(entries, host)
    assert isinstance(document, InstructionsResult)
    return document
