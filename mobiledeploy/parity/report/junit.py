"""A parity report as JUnit XML: one test case per artifact and rung.

What CI systems agree on (Jenkins' and GitLab's readers; the schema of Apache Ant's JUnit task):
`testsuites` > `testsuite` with counts > `testcase` with classname, name and time, which holds a
`failure`, an `error` or a `skipped` unless it passed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.errors import MobileDeployError
    from mobiledeploy.parity.types import ParityReport, Rung

_SUITE = "mobiledeploy parity"
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(report: ParityReport) -> str:
    """Return the XML of a report."""
    cases = [_case(rung, report) for rung in report.rungs]
    if report.first_failure is None and not report.passed and not report.regressions:
        cases.append(_of_all(report.network, "comparison", ["Nothing was compared."]))
    if report.regressions is not None:
        cases.append(_of_all(report.network, "baseline", report.regressions))
    properties = {
        "network": report.network,
        "precision": report.precision,
        "images": f"{report.data.count} of {report.data.source}",
        **{a.file: f"sha256 {a.sha256}, {a.runtime}" for a in report.artifacts},
    }
    return _document(cases, properties, sum(rung.seconds for rung in report.rungs))


def error_to_junit(artifacts: Sequence[str], error: MobileDeployError) -> str:
    """Return the XML of a comparison that could not be made: an error for each artifact."""
    cases = []
    for artifact in artifacts:
        case = ET.Element("testcase", classname=_clean(artifact), name="load", time="0")
        said = ET.SubElement(
            case, "error", message=_clean(error.message), type=type(error).__name__
        )
        said.text = _clean(error.remedy)
        cases.append(case)
    return _document(cases, {}, 0.0)


def _case(rung: Rung, report: ParityReport) -> ET.Element:
    case = ET.Element(
        "testcase",
        classname=_clean(rung.artifact or report.network),
        name=rung.name,
        time=f"{rung.seconds:.3f}",
    )
    _fail(case, rung.all_failures)
    if rung.passed and rung.note:
        ET.SubElement(case, "skipped", message=_clean(f"Shown, not judged: {rung.note}."))
    return case


def _of_all(network: str, name: str, failures: Sequence[str]) -> ET.Element:
    """Return a case about the whole report."""
    case = ET.Element("testcase", classname=_clean(network), name=name, time="0")
    _fail(case, failures)
    return case


def _fail(case: ET.Element, failures: Sequence[str]) -> None:
    if failures:
        failure = ET.SubElement(case, "failure", message=_clean(failures[0]), type="GateError")
        failure.text = _clean("\n".join(failures))


def _document(cases: Sequence[ET.Element], properties: dict[str, str], seconds: float) -> str:
    def count(tag: str) -> str:
        return str(sum(case.find(tag) is not None for case in cases))

    counts = {
        "tests": str(len(cases)),
        "failures": count("failure"),
        "errors": count("error"),
        "skipped": count("skipped"),
        "time": f"{seconds:.3f}",
    }
    root = ET.Element("testsuites", {"name": _SUITE, **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _SUITE, **counts})
    if properties:
        listed = ET.SubElement(suite, "properties")
        for name, value in properties.items():
            ET.SubElement(listed, "property", name=_clean(name), value=_clean(value))
    suite.extend(cases)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    """Return text without the characters that XML 1.0 cannot hold, escaped or not (2.2, Char)."""
    return _FORBIDDEN.sub("\ufffd", text)
