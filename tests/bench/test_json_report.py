"""The documents of `bench`: complete, described by a schema, and checked when they are read."""

import json
import math
from dataclasses import replace

import jsonschema
import numpy as np
import pytest
from bench_results import EQUAL, HOST, counted, measurement, timed

from mobiledeploy.bench.json_report import (
    InstructionsResult,
    TimesResult,
    read_result,
    to_document,
)
from mobiledeploy.bench.outputs import check_outputs
from mobiledeploy.bench.results import OutputCheck
from mobiledeploy.cli import _run
from mobiledeploy.errors import ArtifactError
from mobiledeploy.utils.json_model import schema_text


def as_json(document):
    return json.loads(json.dumps(document.model_dump(mode="json"), allow_nan=False))


def test_the_document_has_raw_times_and_derived_figures():
    times = tuple(float(n) for n in range(1, 102))
    first = measurement("x/a", times, warnings=("doubtful",), artifact_sha256="ab")
    second = measurement("b", tuple(2 * t for t in times))
    host = replace(HOST, features=frozenset({"vnni", "avx2"}))
    document = as_json(to_document([first, second], host, ["beware"]))
    assert {name: document[name] for name in ("schema", "kind", "notes", "baseline")} == {
        "schema": 2,
        "kind": "mobiledeploy.bench",
        "notes": ["beware"],
        "baseline": None,
    }
    assert document["host"] == {
        "architecture": "aarch64",
        "model": "Pi 5",
        "cores": 4,
        "features": ["avx2", "vnni"],
        "uri": "ssh://pi",
        "os": "an OS",
        "emulated": False,
        "runtimes": {"onnxruntime": "1"},
        "conditions": {"governor": "performance"},
    }
    entry, other = document["measurements"]
    assert entry == {
        "artifact": "x/a",
        "artifact_sha256": "ab",
        "runtime": "onnxruntime 1",
        "device": "ssh://pi (Pi 5, aarch64)",
        "threads": 1,
        "warmup": 4,
        "affinity": None,
        "times_ms": list(times),
        "load_ms": 5.0,
        "first_ms": 6.0,
        "peak_memory_bytes": 7,
        "warnings": ["doubtful"],
        "conditions": [],
        "outputs": None,
        "median_ms": 51.0,
        "p90_ms": 91.0,
        "p99_ms": 100.0,
        "iqr_ms": 50.0,
        "ratio_to_first": {"median": 1, "q1": 1, "q3": 1, "low": 1, "high": 1},
    }
    assert other["ratio_to_first"] == {"median": 2, "q1": 2, "q3": 2, "low": 2, "high": 2}


def test_counts_have_a_document_of_their_own():
    document = as_json(counted(("a.onnx", 500), ("b.onnx", 1000)))
    assert document["kind"] == "mobiledeploy.bench.instructions"
    first, second = document["measurements"]
    assert first["instructions"] == [491, 500, 599]
    assert first["median_instructions"] == 500
    assert (first["ratio_to_first"], second["ratio_to_first"]) == (1, 2)


def test_the_json_schema_is_current_and_describes_both_documents(repository, request):
    path = repository / "mobiledeploy" / "bench" / "bench.schema.json"
    expected = schema_text(TimesResult, InstructionsResult)
    if request.config.getoption("--regen"):
        path.write_text(expected)
    assert path.read_text() == expected
    validator = jsonschema.Draft202012Validator(json.loads(expected))
    for document in (timed(measurement()), counted(("a.onnx", 500))):
        validator.validate(as_json(document))
        assert not validator.is_valid(as_json(document) | {"measurements": "none"})


def test_unknown_features_are_null():
    document = to_document([measurement()], replace(HOST, features=None))
    assert as_json(document)["host"]["features"] is None


def test_the_sqnr_of_equal_outputs_is_null():
    rounded = OutputCheck(values=20, differing=3, sqnr_db=80.5)
    document = timed(measurement(outputs=EQUAL), measurement(outputs=rounded))
    entries = as_json(document)["measurements"]
    assert [entry["outputs"]["sqnr_db"] for entry in entries] == [None, 80.5]


@pytest.mark.parametrize(
    ("expected", "found", "sqnr_db"),
    [([0, 0, 0], [1, 2, 3], "-Infinity"), ([1, 2, 3], [1, math.nan, 3], "NaN")],
)
def test_the_sqnr_of_invalid_outputs_is_not_null(expected, found, sqnr_db):
    check = check_outputs((np.float32([expected]),), [(np.float32([found]),)])
    outputs = as_json(timed(measurement(outputs=check)))["measurements"][0]["outputs"]
    assert outputs["sqnr_db"] == sqnr_db
    assert outputs["differing"] > 0
    assert repr(float(sqnr_db)) == repr(check.sqnr_db)


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a document to a file."""

    def to_file(document):
        path = tmp_path / "result.json"
        path.write_text(json.dumps(document))
        return path

    return to_file


def test_a_document_that_was_written_can_be_read(write):
    document = timed(measurement("a.onnx", outputs=EQUAL), measurement("b.onnx"))
    assert read_result(write(as_json(document)), TimesResult) == document
    counts = counted(("a.onnx", 500))
    assert read_result(write(as_json(counts)), InstructionsResult) == counts


def test_a_document_of_schema_1_can_be_read(write):
    """It has other names for a machine's URI and for the fields of `baseline`."""
    document = timed(measurement("a.onnx"), measurement("b.onnx"))
    old = as_json(document)
    old["host"]["place"] = old["host"].pop("uri")
    verdict = {"artifact": "b.onnx", "change": 1.0, "certain_change": 1.0, "yardstick": "a.onnx"}
    old |= {"schema": 1, "baseline": {"verdicts": [verdict], "missing": [], "passed": True}}
    assert read_result(write(old), TimesResult) == document


def test_a_document_from_before_there_were_devices_can_be_read(write):
    """Schema 1 gained fields over time."""
    old = as_json(timed(measurement("a.onnx")))
    old["schema"] = 1
    old["host"] = {name: old["host"][name] for name in ("architecture", "model", "cores")}
    for name in ("conditions", "outputs"):
        del old["measurements"][0][name]
    assert read_result(write(old), TimesResult).host.uri == "local"


@pytest.mark.parametrize("text", ["", "[]", "{}", "3", '{"kind": "mobiledeploy.parity"}'])
def test_other_files_are_refused(tmp_path, text):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(ArtifactError, match="not a result of `mobiledeploy bench`"):
        read_result(path, TimesResult)
    with pytest.raises(ArtifactError, match="No such file"):
        read_result(tmp_path / "none.json", TimesResult)


def test_a_result_of_the_other_kind_is_refused(write):
    path = write(as_json(counted(("a.onnx", 500))))
    with pytest.raises(ArtifactError, match=r"is of the kind 'mobiledeploy.bench.instructions'"):
        read_result(path, TimesResult)


GONE = object()


def damaged(document, keys, value):
    """Return a document with another value, or none, at a path of keys."""
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return document


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["schema"], 9, "`schema` is 9, expected 2"),
        (["host"], GONE, "`host` is missing"),
        (["host"], None, "`host` is null, expected an object"),
        (["host", "model"], None, "`host.model` is null, expected text"),
        (["host", "features"], "dotprod", '`host.features` is "dotprod", expected a list'),
        (["measurements"], GONE, "`measurements` is missing"),
        (["measurements"], None, "`measurements` is null, expected a list"),
        (["measurements"], [], "`measurements` is [], expected a list with 1 or more entries"),
        (["measurements", 1], None, "`measurements.1` is null, expected an object"),
        (["measurements", 1, "artifact_sha256"], GONE, "`measurements.1.artifact_sha256` is miss"),
        (["measurements", 0, "artifact"], 3, "`measurements.0.artifact` is 3, expected text"),
        (["measurements", 0, "threads"], "1", 'threads` is "1", expected a whole number'),
        (["measurements", 0, "times_ms"], [1.0], "expected a list with 2 or more entries"),
        (["measurements", 0, "times_ms"], [1, None], "times_ms.1` is null, expected a number"),
        (["measurements", 0, "times_ms"], [1, 0], "times_ms.1` is 0, expected a number above 0"),
        (["measurements", 0, "times_ms"], [1, float("nan")], "times_ms.1` is NaN"),
        (["measurements", 0, "times_ms"], [1, 2], "2 entries in one measurement and 3 in another"),
        (["measurements", 0, "ratio_to_first"], {}, "ratio_to_first.median` is missing"),
    ],
)
def test_the_first_problem_of_a_damaged_result_is_reported(
    write, keys, value, message, float_onnx, capsys
):
    document = as_json(timed(measurement("a.onnx"), measurement("b.onnx")))
    path = write(damaged(document, keys, value))
    for command in (["compare", str(path)], ["bench", str(float_onnx), "--baseline", str(path)]):
        assert _run(command) == 3
        output = capsys.readouterr().err
        assert f"{path} is not a complete result of `mobiledeploy bench`: " in output
        assert message in output
        assert "Write it again" in output


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (["host", "features"], [1]),
        (["measurements", 0, "instructions"], GONE),
        (["measurements", 0, "instructions"], ["many"]),
    ],
)
def test_damaged_counts_are_refused(write, keys, value):
    document = damaged(as_json(counted(("a.onnx", 500))), keys, value)
    with pytest.raises(ArtifactError, match=f"not a complete .*{keys[-1]}"):
        read_result(write(document), InstructionsResult)
