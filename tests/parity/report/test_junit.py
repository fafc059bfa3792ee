"""JUnit XML: well-formed, with the attributes that readers need, and one case per rung."""

from xml.etree import ElementTree as ET

import pytest

from mobiledeploy.errors import ArtifactError
from mobiledeploy.parity.report.junit import error_to_junit, to_junit

REQUIRED = {
    "testsuite": {"name", "tests", "failures", "errors", "skipped", "time"},
    "testcase": {"classname", "name", "time"},
    "failure": {"message", "type"},
    "error": {"message", "type"},
    "skipped": {"message"},
    "property": {"name", "value"},
}
CHILDREN = {
    "testsuites": {"testsuite"},
    "testsuite": {"properties", "testcase"},
    "properties": {"property"},
    "testcase": {"failure", "error", "skipped"},
}


def parsed(text):
    """Parse, and check what the schema of Apache Ant's JUnit task requires."""
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    for element in root.iter():
        assert REQUIRED.get(element.tag, set()) <= set(element.attrib), element.tag
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
    for suite in root:
        cases = suite.findall("testcase")
        assert int(suite.get("tests")) == len(cases)
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(count)) == len(suite.findall(f"testcase/{tag}"))
        assert all(float(case.get("time")) >= 0 for case in cases)
        # properties come first
        assert [child.tag for child in suite].index("testcase") <= 1
    return root


def test_there_is_one_case_per_artifact_and_rung(report):
    cases = parsed(to_junit(report)).findall(".//testcase")
    assert [(c.get("classname"), c.get("name")) for c in cases] == [
        ("net", "float"),
        ("net", "integers"),
        ("net-int8.onnx", "onnx"),
    ]
    assert all(len(case) == 0 for case in cases)
    assert float(cases[0].get("time")) == 1.25


def test_a_rung_that_failed_says_why(failing):
    root = parsed(to_junit(failing))
    (failure,) = root.findall(".//failure")
    assert failure.get("message").startswith("1 of 120 logits differ: <script>")
    assert "\x07" not in to_junit(failing)
    assert root.get("failures") == "1"


def test_what_is_not_checked_is_skipped(report):
    unchecked = report.rungs[1].model_copy(update={"note": "random weights"})
    rungs = (report.rungs[0], unchecked, report.rungs[2])
    root = parsed(to_junit(report.model_copy(update={"rungs": rungs})))
    (skipped,) = root.findall(".//skipped")
    assert skipped.get("message") == "Not checked: random weights."


def test_a_report_of_nothing_has_a_case_that_failed(report):
    empty = report.model_copy(update={"data": report.data.model_copy(update={"count": 0})})
    root = parsed(to_junit(empty))
    assert [f.get("message") for f in root.findall(".//failure")] == ["Nothing was compared."]


@pytest.mark.parametrize(
    ("regressions", "messages"), [((), []), (("onnx: sqnr_db fell.",), ["onnx: sqnr_db fell."])]
)
def test_a_baseline_is_a_case_of_its_own(report, regressions, messages):
    root = parsed(to_junit(report.model_copy(update={"regressions": regressions})))
    case = root.findall(".//testcase")[-1]
    assert case.get("name") == "baseline"
    assert [failure.get("message") for failure in case] == messages
    assert len(root.findall(".//testcase")) == 4


def test_characters_that_xml_cannot_hold_are_replaced(report):
    parsed(to_junit(report.model_copy(update={"network": "a\x00\x1b\ud800\uffff b"})))


def test_a_comparison_that_failed_is_an_error_of_each_artifact():
    error = ArtifactError("The manifest is missing.", remedy="Export it again.")
    root = parsed(error_to_junit(["a.onnx", "a.pte"], error))
    assert [e.get("type") for e in root.findall(".//error")] == ["ArtifactError"] * 2
    assert root.find(".//error").text == "Export it again."
    assert root.get("errors") == "2"
