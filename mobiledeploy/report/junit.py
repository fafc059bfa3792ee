"""A parity report as JUnit XML: one test case per artifact and rung.

What CI systems agree on (Jenkins' and GitLab's readers; the schema of Apache Ant's JUnit task):
`testsuites` > `testsuite` with counts > `testcase` with classname, name and time, which holds a
`failure`, an `error` or a `skipped` unless it passed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.errors import MobileDeployError
    from mobiledeploy.types import ParityReport, Rung

_SUITE = "mobiledeploy parity"


def to_junit(report: ParityReport) -> str:
    """Return the XML of a report."""
    cases = [_case(rung, report) for rung in report.rungs]
    if report.first_failure is None and not report.passed:
        nothing = ET.Element("testcase", classname=report.network, name="comparison", time="0")
        ET.SubElement(nothing, "failure", message="Nothing was compared.", type="GateError")
        cases.append(nothing)
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
    if not rung.passed:
        text = "\n".join(rung.all_failures)
        first = rung.all_failures[0]
        failure = ET.SubElement(case, "failure", message=_clean(first), type="GateError")
        failure.text = _clean(text)
    elif rung.note:
        ET.SubElement(case, "skipped", message=_clean(f"Shown, not judged: {rung.note}."))
    return case


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
    """Return text without the control characters that XML 1.0 cannot hold, escaped or not."""
    return "".join(c if c in "\t\n" or c >= " " else "�" for c in text)
