"""The JSON document: versioned, complete, and its ratios are to the first artifact."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from mobiledeploy.bench.json_report import to_document
from mobiledeploy.bench.outputs import check_outputs
from mobiledeploy.bench.results import Measurement, OutputCheck
from mobiledeploy.devices.host import Host

HOST = Host(
    architecture="riscv64",
    model="A chip",
    cores=3,
    features=frozenset({"vnni", "avx2"}),
    os="an OS",
    runtimes={"onnxruntime": "9"},
    conditions={"governor": "performance"},
)


def measurement(name, times_ms):
    return Measurement(
        artifact=name,
        artifact_sha256="ab" * 32,
        runtime="onnxruntime 9",
        device=HOST.label,
        threads=2,
        warmup=4,
        times_ms=times_ms,
        load_ms=5.0,
        first_ms=6.0,
        peak_memory_bytes=7,
        warnings=("doubtful",),
    )


def test_the_document_holds_raw_times_and_what_follows_from_them():
    times = tuple(float(n) for n in range(1, 102))
    doubled = tuple(2 * t for t in times)
    document = to_document([measurement("a", times), measurement("b", doubled)], HOST, ["beware"])
    assert json.loads(json.dumps(document)) == document | {
        "measurements": [
            entry | {name: list(entry[name]) for name in ("times_ms", "warnings", "conditions")}
            for entry in document["measurements"]
        ]
    }
    assert document["schema"] == 1
    assert document["kind"] == "mobiledeploy.bench"
    assert document["host"] == {
        "architecture": "riscv64",
        "model": "A chip",
        "cores": 3,
        "features": ["avx2", "vnni"],
        "place": "local",
        "os": "an OS",
        "emulated": False,
        "runtimes": {"onnxruntime": "9"},
        "conditions": {"governor": "performance"},
    }
    assert document["notes"] == ["beware"]
    first, second = document["measurements"]
    assert first == {
        "artifact": "a",
        "artifact_sha256": "ab" * 32,
        "runtime": "onnxruntime 9",
        "device": "local (A chip, riscv64)",
        "threads": 2,
        "warmup": 4,
        "times_ms": times,
        "load_ms": 5.0,
        "first_ms": 6.0,
        "peak_memory_bytes": 7,
        "warnings": ("doubtful",),
        "conditions": (),
        "outputs": None,
        "median_ms": 51.0,
        "p90_ms": 91.0,
        "p99_ms": 100.0,
        "iqr_ms": 50.0,
        "ratio_to_first": {"median": 1, "q1": 1, "q3": 1, "low": 1, "high": 1},
    }
    assert second["ratio_to_first"] == {"median": 2, "q1": 2, "q3": 2, "low": 2, "high": 2}


def test_unknown_features_are_null_rather_than_none_found():
    host = Host(architecture="x86_64", model="", cores=1, features=None)
    document = to_document([measurement("a", (1.0, 2.0))], host, [])
    assert document["host"]["features"] is None


def test_outputs_that_do_not_differ_have_no_figure_that_json_cannot_hold():
    exact = OutputCheck(values=20, differing=0, sqnr_db=math.inf)
    rounded = OutputCheck(values=20, differing=3, sqnr_db=80.5)
    pair = [replace(measurement("a", (1.0, 2.0)), outputs=check) for check in (exact, rounded)]
    entries = to_document(pair, HOST, [])["measurements"]
    assert [e["outputs"]["sqnr_db"] for e in entries] == [None, 80.5]
    json.dumps(entries, allow_nan=False)


@pytest.mark.parametrize(
    ("expected", "found", "sqnr_db"),
    [([0, 0, 0], [1, 2, 3], "-Infinity"), ([1, 2, 3], [1, math.nan, 3], "NaN")],
)
def test_outputs_without_a_figure_do_not_look_like_equal_ones(expected, found, sqnr_db):
    check = check_outputs(np.float32([expected]), [np.float32([found])])
    entry = replace(measurement("a", (1.0, 2.0)), outputs=check)
    outputs = to_document([entry], HOST, [])["measurements"][0]["outputs"]
    assert outputs["sqnr_db"] == sqnr_db
    assert outputs["differing"] > 0
    assert repr(float(sqnr_db)) == repr(check.sqnr_db)  # what the text says is what was found
