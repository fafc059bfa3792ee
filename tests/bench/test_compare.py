"""Results side by side: rows, Markdown, a page, a plot."""

import hashlib
import json
import xml.etree.ElementTree as ET

import pytest

from mobiledeploy.bench.compare import rows_of, to_html, to_markdown, to_svg
from mobiledeploy.cli import _run

SVG = "{http://www.w3.org/2000/svg}"


BYTES = {"float.onnx": bytes(4000), "int8.onnx": bytes(1000)}


def document(folder, place, medians):
    return {
        "schema": 1,
        "kind": "mobiledeploy.bench",
        "host": {"place": place, "model": "A <chip>", "architecture": "aarch64"},
        "measurements": [
            {
                "artifact": str(folder / name),
                "artifact_sha256": hashlib.sha256(BYTES[name]).hexdigest(),
                "runtime": "onnxruntime 1",
                "threads": 1,
                "times_ms": [median, median],
                "median_ms": median,
                "p90_ms": 1.2 * median,
                "ratio_to_first": {"median": median / next(iter(medians.values()))},
            }
            for name, median in medians.items()
        ],
    }


def rung(artifact, comparisons):
    return {
        "artifact": artifact,
        "comparisons": [
            {"reference": name, "metrics": {"sqnr_db": sqnr, "top1_agreement": agreement}}
            for name, (sqnr, agreement) in comparisons.items()
        ],
    }


@pytest.fixture
def documents(tmp_path):
    """Two artifacts on two devices; one of them has a manifest that says what int8 has cost."""
    for name, content in BYTES.items():
        (tmp_path / name).write_bytes(content)
    manifest = {
        "artifact": {"sha256": hashlib.sha256(BYTES["int8.onnx"]).hexdigest()},
        "parity": {
            "rungs": [
                rung("", {"float": (1.0, 0.1)}),
                rung("int8.pte", {"integers": (None, 1.0), "float": (2.0, 0.2)}),
                rung("int8.onnx", {"integers": (None, 1.0), "float": (19.25, 0.97)}),
            ]
        },
    }
    (tmp_path / "int8.onnx.json").write_text(json.dumps(manifest))
    medians = {"float.onnx": 8.0, "int8.onnx": 4.0}
    return [document(tmp_path, place, medians) for place in ("local", "ssh://pi")]


def test_rows_hold_what_the_results_and_the_manifests_say(documents):
    rows = rows_of(documents)
    assert [(r.artifact, r.device) for r in rows] == [
        ("float.onnx", "local, A <chip>"),
        ("int8.onnx", "local, A <chip>"),
        ("float.onnx", "ssh://pi, A <chip>"),
        ("int8.onnx", "ssh://pi, A <chip>"),
    ]
    assert (rows[0].sqnr_db, rows[0].agreement, rows[0].size_bytes) == (None, None, 4000)
    assert (rows[1].sqnr_db, rows[1].agreement, rows[1].size_bytes) == (19.25, 0.97, 1000)
    assert (rows[1].median_ms, rows[1].ratio) == (4.0, 0.5)


def test_a_manifest_of_another_artifact_does_not_count(documents, tmp_path):
    path = tmp_path / "int8.onnx.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"artifact": {"sha256": "cd" * 32}}))
    assert {row.sqnr_db for row in rows_of(documents)} == {None}


def test_a_file_that_is_another_by_now_has_no_size(documents, tmp_path):
    (tmp_path / "float.onnx").write_bytes(b"another")
    assert [row.size_bytes for row in rows_of(documents)][:2] == [None, 1000]


def test_figures_that_json_has_no_numbers_for(documents, tmp_path, capsys):
    """An export from which nothing differs says null of its SQNR: that is infinite."""
    path = tmp_path / "int8.onnx.json"
    path.write_text(path.read_text().replace("19.25", "null"))
    result = tmp_path / "result.json"
    result.write_text(json.dumps(documents[0]))
    assert "| inf |" in to_markdown(rows_of(documents))
    assert _run(["compare", str(result), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][1]["sqnr_db"] is None


def test_markdown_is_one_table(documents):
    lines = to_markdown(rows_of(documents)).splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    figures = "4.00 | 4.80 | 0.500 | 0.00 | 19.2 | 0.970"
    assert lines[3] == f"| int8.onnx | local, A <chip> | onnxruntime 1 | {figures} |"


def test_the_plot_has_a_bubble_for_each_row_with_an_accuracy(documents):
    rows = rows_of(documents)
    chart = ET.fromstring(to_svg(rows))
    circles = chart.findall(f"{SVG}circle")
    assert len(circles) == 2
    assert len({circle.get("fill") for circle in circles}) == 2  # two devices
    assert "2 of 4 without SQNR" in "".join(chart.itertext())
    for circle in circles:
        assert 0 < float(circle.get("cx")) < float(chart.get("width"))
        assert 0 < float(circle.get("cy")) < float(chart.get("height"))


def test_faster_is_to_the_left_and_better_is_up(documents):
    documents[1]["measurements"][1]["median_ms"] = 40.0
    fast, slow = ET.fromstring(to_svg(rows_of(documents))).findall(f"{SVG}circle")
    assert float(fast.get("cx")) < float(slow.get("cx"))


def test_an_empty_plot_is_still_one(documents):
    assert ET.fromstring(to_svg(rows_of(documents)[:1])).findall(f"{SVG}circle") == []


def test_names_are_escaped_in_the_page(documents):
    page = to_html(rows_of(documents))
    assert "A &lt;chip&gt;" in page
    assert "A <chip>" not in page


def test_the_command_writes_what_it_is_asked_for(documents, tmp_path, capsys):
    results = []
    for number, content in enumerate(documents):
        results.append(tmp_path / f"{number}.json")
        results[-1].write_text(json.dumps(content))
    markdown, page = tmp_path / "out.md", tmp_path / "out.html"
    arguments = [*map(str, results), "--markdown", str(markdown), "--html", str(page), "--json"]
    assert _run(["compare", *arguments]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["rows"]) == 4
    assert markdown.read_text() == to_markdown(rows_of(documents))
    assert page.read_text() == to_html(rows_of(documents))
    assert _run(["compare", str(results[0])]) == 0
    assert "int8.onnx" in capsys.readouterr().err


def test_where_one_file_cannot_be_written_none_is(documents, tmp_path, capsys):
    result, markdown = tmp_path / "0.json", tmp_path / "out.md"
    result.write_text(json.dumps(documents[0]))
    arguments = [str(result), "--markdown", str(markdown), "--html", str(tmp_path)]
    assert _run(["compare", *arguments]) == 4
    assert "it is a folder" in capsys.readouterr().err
    assert not markdown.exists()


def test_what_is_no_result_exits_with_3(tmp_path, capsys):
    (tmp_path / "bad.json").write_text("{}")
    assert _run(["compare", str(tmp_path / "bad.json")]) == 3
    assert "is not a result" in capsys.readouterr().err
