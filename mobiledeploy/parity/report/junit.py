"""A parity report as JUnit XML: one test case per artifact and rung."""

from __future__ import annotations

from typing import TYPE_CHECKING

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from mobiledeploy.utils.xml_text import xml_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.errors import MobileDeployError
    from mobiledeploy.parity.types import ParityReport, Rung

_SUITE = "mobiledeploy parity"


def to_junit(report: ParityReport) -> str:
    """Return a report as XML."""
    cases = [_rung_case(rung, report.network) for rung in report.rungs]
    if report.first_failure is None and not report.passed and not report.regressions:
        cases.append(_case(report.network, "comparison", ["Nothing was compared."]))
    if report.regressions is not None:
        cases.append(_case(report.network, "baseline", report.regressions))
    properties = {
        "network": report.network,
        "precision": report.precision,
        "images": f"{report.data.count} of {report.data.source}",
        **{a.file: f"sha256 {a.sha256}, {a.runtime}" for a in report.artifacts},
    }
    return _xml(cases, properties)


def error_to_junit(artifacts: Sequence[str], error: MobileDeployError) -> str:
    """Return an error that prevented the comparison as XML: one case per artifact."""
    cases = []
    for artifact in artifacts:
        case = TestCase("load", xml_text(artifact), 0.0)
        result = Error(xml_text(error.message), type(error).__name__)
        result.text = xml_text(error.remedy)
        case.result = [result]
        cases.append(case)
    return _xml(cases, {})


def _rung_case(rung: Rung, network: str) -> TestCase:
    case = _case(rung.artifact or network, rung.name, rung.failures, rung.seconds)
    if rung.passed and rung.note:
        case.result = [Skipped(xml_text(f"Not checked: {rung.note}."))]
    return case


def _case(class_name: str, name: str, failures: Sequence[str], seconds: float = 0.0) -> TestCase:
    case = TestCase(name, xml_text(class_name), round(seconds, 3))
    if failures:
        result = Failure(xml_text(failures[0]), "GateError")
        result.text = xml_text("\n".join(failures))
        case.result = [result]
    return case


def _xml(cases: list[TestCase], properties: Mapping[str, str]) -> str:
    suite = TestSuite(_SUITE)
    for name, value in properties.items():  # the schema wants them before the cases
        suite.add_property(xml_text(name), xml_text(value))
    suite.add_testcases(cases)
    document = JUnitXml(_SUITE)
    document.add_testsuite(suite)
    document.update_statistics()  # type: ignore[no-untyped-call]
    text: str = document.tostring().decode()  # type: ignore[no-untyped-call]
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'
