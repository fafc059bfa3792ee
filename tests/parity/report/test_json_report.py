"""The JSON document: as its schema says, whole, and without what changes from run to run."""

import json
import math
from dataclasses import replace
from importlib import resources

import jsonschema
import pytest

from mobiledeploy.parity.report.json_report import SCHEMA, summary, to_document


@pytest.fixture(scope="module")
def schema():
    text = (
        resources.files("mobiledeploy.parity.report")
        .joinpath("parity.schema.json")
        .read_text("utf-8")
    )
    document = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def test_a_report_is_what_the_schema_says(report, failing, schema):
    for one in (report, failing):
        schema.validate(json.loads(json.dumps(to_document(one))))


@pytest.mark.parametrize(
    "change",
    [
        {"schema": SCHEMA + 1},
        {"passed": "yes"},
        {"first_failure": "roof"},
        {"rungs": []},
        {"surprise": 1},
        {"artifacts": [{"file": "a"}]},
        {"regressions": "none"},
    ],
)
def test_the_schema_refuses_what_is_not_a_report(report, schema, change):
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(to_document(report) | change)


def test_equal_logits_have_an_sqnr_of_null_because_json_has_no_infinity(report):
    document = to_document(report)
    assert document["rungs"][2]["comparisons"][0]["metrics"]["sqnr_db"] is None
    assert document["layers"][1]["own_sqnr_db"] is None
    assert json.loads(json.dumps(document, allow_nan=False)) == json.loads(json.dumps(document))


def test_noise_where_float_has_nothing_is_not_told_as_equal(report, schema):
    first, *others = report.layers
    dead = replace(first, sqnr_db=-math.inf)
    document = to_document(replace(report, layers=(dead, *others)))
    assert document["layers"][0]["sqnr_db"] == "-Infinity"
    schema.validate(json.loads(json.dumps(document, allow_nan=False)))


def test_the_verdict_and_the_first_failure_are_told(report, failing):
    assert (to_document(report)["passed"], to_document(report)["first_failure"]) == (True, None)
    document = to_document(failing)
    assert (document["passed"], document["first_failure"]) == (False, "onnx")
    rung = document["rungs"][2]
    assert rung["failures"][0].startswith("1 of 120")
    assert [c["passed"] for c in rung["comparisons"]] == [False, True]
    assert rung["first_layer"] == "stem conv2d"


def test_regressions_are_told_and_none_is_not_the_same_as_no_baseline(report):
    assert to_document(report)["regressions"] is None
    assert to_document(replace(report, regressions=()))["regressions"] == []
    worse = to_document(replace(report, regressions=("onnx: it fell.",)))
    assert (worse["passed"], worse["regressions"]) == (False, ["onnx: it fell."])


def test_a_summary_has_neither_times_nor_pictures(report):
    slower = replace(report, rungs=tuple(replace(r, seconds=9.0) for r in report.rungs))
    assert summary(slower) == summary(report)
    assert "thumbnail" not in json.dumps(to_document(report))
