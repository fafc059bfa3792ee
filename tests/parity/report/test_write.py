"""Writing reports: every requested format, and nothing imported for the others."""

import json
import subprocess
import sys
from xml.etree import ElementTree as ET

import pytest

from mobiledeploy.errors import ArtifactError, RuntimeFailedError
from mobiledeploy.parity.report.write import Targets, errors_reported, write_all


def test_every_requested_format_is_written(report, tmp_path):
    paths = {name: tmp_path / f"report.{name}" for name in ("json", "junit", "markdown", "html")}
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    write_all(report, Targets(**paths, summary=str(summary)), None)
    assert json.loads(paths["json"].read_text())["kind"] == "mobiledeploy.parity"
    assert ET.fromstring(paths["junit"].read_text()).tag == "testsuites"
    assert paths["html"].read_text().startswith("<!doctype html>")
    assert summary.read_text() == "before\n" + paths["markdown"].read_text()


def test_nothing_is_written_that_was_not_requested(report, tmp_path):
    write_all(report, Targets(), None)
    assert list(tmp_path.iterdir()) == []


def test_a_summary_that_cannot_be_written_is_an_error(report, tmp_path):
    targets = Targets(markdown=tmp_path / "a.md", summary=str(tmp_path / "no" / "summary.md"))
    with pytest.raises(RuntimeFailedError, match="Could not append"):
        write_all(report, targets, None)


def test_an_error_replaces_an_older_junit_report(tmp_path):
    junit = tmp_path / "a.xml"
    junit.write_text("an older report")
    with (
        pytest.raises(ArtifactError),
        errors_reported(Targets(junit=junit), [tmp_path / "a.onnx"]),
    ):
        raise ArtifactError("The manifest is missing.")
    assert ET.fromstring(junit.read_text()).get("errors") == "1"


@pytest.mark.ci
@pytest.mark.parametrize(("html", "loaded"), [("", set()), ("a.html", {"matplotlib", "jinja2"})])
def test_only_html_imports_matplotlib_and_jinja(tmp_path, html, loaded, repository):
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(repository / "tests")!r})
from parity_reports import make_report
from mobiledeploy.parity.report.write import Targets, write_all
html = {html!r}
write_all(make_report(), Targets(json=Path("a.json"), html=Path(html) if html else None), None)
print([name for name in ("matplotlib", "jinja2") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert set(json.loads(done.stdout.replace("'", '"'))) == loaded
