"""All reports of one run of `mobiledeploy parity`, and the use of one as a baseline."""

import json
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree as ET

import jsonschema
import planted
import pytest
from refusals import refused
from test_must_fail import as_if_exported

pytestmark = pytest.mark.ci  # each test starts several commands


@pytest.fixture(scope="module")
def reports(mobiledeploy, pair, workplace: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    done = mobiledeploy(
        *(
            "parity",
            *pair,
            "--layers",
            "--resizes",
            "--json",
            folder / "a.json",
            "--junit",
            folder / "a.xml",
        ),
        *("--markdown", folder / "a.md", "--html", folder / "a.html"),
        cwd=workplace,
        env={"GITHUB_STEP_SUMMARY": str(folder / "summary.md")},
    )
    assert done.returncode == 0, done.stderr
    assert "The layers where the SQNR drops most" in done.stdout
    assert "Float network, resized like Android's createScaledBitmap" in done.stdout
    return folder


def test_a_report_can_go_to_stdout(mobiledeploy, pair, workplace: Path):
    done = mobiledeploy("parity", pair[1], "--samples", 8, "--junit", "-", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert ET.fromstring(done.stdout).tag == "testsuites"


def test_options_of_devices_need_a_device(mobiledeploy, pair, workplace: Path):
    done = mobiledeploy("parity", pair[1], "--timeout", 60, cwd=workplace)
    refused(done, 2, "--timeout needs --device")


def test_the_json_document_is_valid_under_its_schema(reports: Path):
    schema = (
        resources.files("mobiledeploy.parity.report").joinpath("parity.schema.json").read_text()
    )
    document = json.loads((reports / "a.json").read_text())
    jsonschema.validate(document, json.loads(schema))
    assert len(document["layers"]) > 12
    assert len(document["worst_images"]) == 8
    found = {each["interpolation"]: each for each in document["resizes"]}
    assert set(found) == {"bilinear-aliased", "lanczos"}
    assert all(each["mean_pixel_difference"] > 0 for each in found.values())


def test_other_resizes_are_in_every_report(reports: Path):
    for name in ("a.md", "a.html"):
        text = (reports / name).read_text()
        assert "resized like Android" in text
        assert "resized like iOS" in text


def test_junit_has_a_case_for_each_artifact_and_rung(reports: Path, pair):
    cases = ET.parse(reports / "a.xml").getroot().findall(".//testcase")
    found = [(case.get("classname"), case.get("name")) for case in cases]
    pte, onnx = (path.name for path in pair)
    assert found[-3:] == [(onnx, "onnx-unoptimized"), (onnx, "onnx"), (pte, "pte")]


def test_markdown_is_appended_to_the_summary_of_the_job(reports: Path):
    text = (reports / "a.md").read_text()
    assert text.startswith("## ✅ Parity holds")
    assert (reports / "summary.md").read_text() == text


def test_the_page_is_complete_and_small(reports: Path):
    page = (reports / "a.html").read_text()
    assert page.count("<figure>") == 8
    assert page.count("<svg") == 2  # one for a desk, one for a phone
    assert len(page) < 300_000


def test_a_baseline_fails_a_report_that_is_worse(
    mobiledeploy, reports: Path, pair, workplace: Path, tmp_path: Path
):
    same = mobiledeploy("parity", pair[1], "--baseline", reports / "a.json", cwd=workplace)
    refused(same, 1, "Worse than the baseline", "pte: the baseline has this rung")
    document = json.loads((reports / "a.json").read_text())
    document["rungs"] = [rung for rung in document["rungs"] if rung["name"] != "pte"]
    stored = tmp_path / "stored.json"
    stored.write_text(json.dumps(document))
    fine = mobiledeploy("parity", pair[1], "--baseline", stored, cwd=workplace)
    assert fine.returncode == 0, fine.stderr
    assert "Parity holds, and nothing is worse than the baseline." in fine.stdout
    stored.write_text("{}")
    done = mobiledeploy("parity", pair[1], "--baseline", stored, cwd=workplace)
    refused(done, 3, "The baseline has kind None, expected 'mobiledeploy.parity'")


def test_reports_are_written_when_the_gate_fails(
    mobiledeploy, copied: Path, workplace: Path, tmp_path: Path
):
    planted.plant(copied, copied, planted.swapped_channels(9))
    as_if_exported(copied)
    junit, page = tmp_path / "bad.xml", tmp_path / "bad.html"
    done = mobiledeploy("parity", copied, "--junit", junit, "--html", page, cwd=workplace)
    assert done.returncode == 1
    failed = ET.parse(junit).getroot().findall(".//failure/..")
    assert [case.get("name") for case in failed] == ["onnx-unoptimized", "onnx"]
    assert "Parity FAILED at the rung" in page.read_text()


def test_an_artifact_that_cannot_be_loaded_is_an_error_in_junit(
    mobiledeploy, copied: Path, workplace: Path, tmp_path: Path
):
    planted.plant(copied, copied, planted.perturbed_weight(0))
    junit = tmp_path / "error.xml"
    done = mobiledeploy("parity", copied, "--junit", junit, cwd=workplace)
    assert done.returncode == 3
    (error,) = ET.parse(junit).getroot().findall(".//error")
    assert "is not the file that its manifest describes" in error.get("message")
