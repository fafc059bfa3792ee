"""JSON reports: valid under the schema, complete, and without what changes from run to run."""

import json
import math

import jsonschema
import pytest

from mobiledeploy.parity.report.json_report import summary, to_document
from mobiledeploy.parity.types import SCHEMA, ParityReport
from mobiledeploy.utils.json_model import schema_text


@pytest.fixture(scope="module")
def schema_path(repository):
    return repository / "mobiledeploy" / "parity" / "report" / "parity.schema.json"


@pytest.fixture(scope="module")
def schema(schema_path):
    document = json.loads(schema_path.read_text())
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def test_the_packaged_schema_is_that_of_the_models(schema_path, request):
    if request.config.getoption("--regen"):
        schema_path.write_text(schema_text(ParityReport))
    assert schema_path.read_text() == schema_text(ParityReport)


def test_a_report_is_valid(report, failing, schema):
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


@pytest.mark.parametrize("key", ["passed", "layers", "device"])
def test_the_schema_requires_every_key(report, schema, key):
    document = to_document(report)
    del document[key]
    with pytest.raises(jsonschema.ValidationError):
        schema.validate(document)


def test_a_report_is_read_back_as_it_was(report):
    again = ParityReport.model_validate_json(json.dumps(to_document(report)))
    assert to_document(again) == to_document(report)


def test_the_infinite_sqnr_of_equal_logits_is_null(report):
    document = to_document(report)
    assert document["rungs"][2]["comparisons"][0]["metrics"]["sqnr_db"] is None
    assert document["layers"][1]["own_sqnr_db"] is None
    json.dumps(document, allow_nan=False)


def test_noise_without_signal_is_not_written_as_null(report, schema):
    first, *others = report.layers
    dead = first.model_copy(update={"sqnr_db": -math.inf})
    document = to_document(report.model_copy(update={"layers": (dead, *others)}))
    assert document["layers"][0]["sqnr_db"] == "-Infinity"
    schema.validate(json.loads(json.dumps(document, allow_nan=False)))


def test_the_verdict_and_the_first_failure_are_written(report, failing):
    assert (to_document(report)["passed"], to_document(report)["first_failure"]) == (True, None)
    document = to_document(failing)
    assert (document["passed"], document["first_failure"]) == (False, "onnx")
    rung = document["rungs"][2]
    assert rung["failures"][0].startswith("1 of 120")
    assert [c["passed"] for c in rung["comparisons"]] == [False, True]
    assert rung["first_differing_layer"] == "stem conv2d"


def test_no_baseline_differs_from_no_regressions(report):
    def document(regressions):
        return to_document(report.model_copy(update={"regressions": regressions}))

    assert to_document(report)["regressions"] is None
    assert document(())["regressions"] == []
    worse = document(("onnx: it fell.",))
    assert (worse["passed"], worse["regressions"]) == (False, ["onnx: it fell."])


def test_a_summary_has_neither_times_nor_pictures(report):
    slower = tuple(rung.model_copy(update={"seconds": 9.0}) for rung in report.rungs)
    assert summary(report.model_copy(update={"rungs": slower})) == summary(report)
    assert list(summary(report)) == [
        "schema", "passed", "first_failure", "network", "precision", "task", "data", "artifacts",
        "rungs",
    ]  # fmt: skip
    assert "thumbnail" not in json.dumps(to_document(report))
