"""Results side by side: rows, Markdown, HTML, text."""

import hashlib
import json
from dataclasses import replace

import jsonschema
import manifests
import pytest
from bench_results import HOST, measurement, timed

from mobiledeploy.bench.compare import HEADINGS, CompareDocument, rows_of, to_markdown
from mobiledeploy.bench.compare_page import to_html
from mobiledeploy.cli import _run
from mobiledeploy.utils.json_model import schema_text

BYTES = {"float.onnx": bytes(4000), "int8.onnx": bytes(1000)}


def document(folder, uri, medians):
    host = replace(HOST, uri=uri, model="A <chip>")
    return timed(
        *(
            measurement(
                str(folder / name),
                (median, median, 1.25 * median),
                artifact_sha256=hashlib.sha256(BYTES[name]).hexdigest(),
            )
            for name, median in medians.items()
        ),
        host=host,
    )


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
    """Two artifacts on two devices; one artifact has a manifest with its accuracy."""
    for name, content in BYTES.items():
        (tmp_path / name).write_bytes(content)
    manifest = manifests.document(
        artifact={"sha256": hashlib.sha256(BYTES["int8.onnx"]).hexdigest()},
        parity={
            "schema": 4,
            "passed": True,
            "rungs": [
                rung("", {"float": (1.0, 0.1)}),
                rung("int8.pte", {"integers": (None, 1.0), "float": (2.0, 0.2)}),
                rung("int8.onnx", {"integers": (None, 1.0), "float": (19.25, 0.97)}),
            ],
        },
    )
    (tmp_path / "int8.onnx.json").write_text(json.dumps(manifest))
    medians = {"float.onnx": 8.0, "int8.onnx": 4.0}
    return [document(tmp_path, uri, medians) for uri in ("local", "ssh://pi")]


def test_rows_combine_results_and_manifests(documents):
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


def test_a_manifest_of_another_artifact_is_ignored(documents, tmp_path):
    path = tmp_path / "int8.onnx.json"
    manifest = json.loads(path.read_text())
    manifest["artifact"]["sha256"] = "cd" * 32
    path.write_text(json.dumps(manifest))
    assert {row.sqnr_db for row in rows_of(documents)} == {None}


def test_an_sqnr_that_counts_biases_is_left_out(documents, tmp_path):
    """Before schema 4, `sqnr_db` of a parity report was another figure."""
    path = tmp_path / "int8.onnx.json"
    manifest = json.loads(path.read_text())
    del manifest["parity"]["schema"]
    path.write_text(json.dumps(manifest))
    row = rows_of(documents)[1]
    assert (row.sqnr_db, row.agreement) == (None, 0.97)


def test_a_file_that_has_changed_has_no_size(documents, tmp_path):
    (tmp_path / "float.onnx").write_bytes(b"another")
    assert [row.size_bytes for row in rows_of(documents)][:2] == [None, 1000]


def test_an_infinite_sqnr_is_null_in_json(documents, tmp_path, capsys):
    """The manifest has null for an export whose logits equal float."""
    path = tmp_path / "int8.onnx.json"
    path.write_text(path.read_text().replace("19.25", "null"))
    result = tmp_path / "result.json"
    result.write_text(documents[0].model_dump_json())
    assert "| inf |" in to_markdown(rows_of(documents))
    assert _run(["compare", str(result), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][1]["sqnr_db"] is None


def test_the_json_schema_is_current_and_describes_the_document(documents, repository, request):
    path = repository / "mobiledeploy" / "bench" / "compare.schema.json"
    if request.config.getoption("--regen"):
        path.write_text(schema_text(CompareDocument))
    assert path.read_text() == schema_text(CompareDocument)
    document = CompareDocument(rows=rows_of(documents)).model_dump(mode="json")
    jsonschema.validate(document, json.loads(path.read_text()))
    assert (document["schema"], document["kind"]) == (1, "mobiledeploy.compare")


def test_markdown_is_one_table(documents):
    lines = to_markdown(rows_of(documents)).splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1
    figures = "4.00 | 4.80 | 0.500 | 0.00 | 19.2 | 0.970"
    assert lines[3] == f"| int8.onnx | local, A <chip> | onnxruntime 1 | {figures} |"


def test_the_command_writes_the_requested_files(documents, tmp_path, capsys):
    results = []
    for number, content in enumerate(documents):
        results.append(tmp_path / f"{number}.json")
        results[-1].write_text(content.model_dump_json())
    markdown, page = tmp_path / "out.md", tmp_path / "out.html"
    arguments = [*map(str, results), "--markdown", str(markdown), "--html", str(page), "--json"]
    assert _run(["compare", *arguments]) == 0
    captured = capsys.readouterr()
    assert len(json.loads(captured.out)["rows"]) == 4
    assert markdown.read_text() == to_markdown(rows_of(documents))
    assert page.read_text() == to_html(rows_of(documents), HEADINGS)


def test_the_table_fits_80_columns_and_names_have_their_own_lines(documents, tmp_path, capsys):
    result = tmp_path / "result.json"
    result.write_text(documents[1].model_dump_json())
    assert _run(["compare", str(result)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "float.onnx",
        "  onnxruntime 1 on ssh://pi, A <chip>",
        "    8.00  9.60     1.000  0.00",
        "int8.onnx",
        "  onnxruntime 1 on ssh://pi, A <chip>",
        "    4.00  4.80     0.500  0.00  19.2      0.970",
    ]
    assert lines[0].split() == ["median", "p90", "ratio", "MB", "SQNR", "agreement"]
    assert lines[1].split() == ["ms", "ms", "to", "first", "dB"]
    assert max(map(len, lines)) <= 80


def test_nothing_is_written_if_one_file_cannot_be(documents, tmp_path, capsys):
    result, markdown = tmp_path / "0.json", tmp_path / "out.md"
    result.write_text(documents[0].model_dump_json())
    arguments = [str(result), "--markdown", str(markdown), "--html", str(tmp_path)]
    assert _run(["compare", *arguments]) == 4
    assert "it is a folder" in capsys.readouterr().err
    assert not markdown.exists()


def test_other_files_exit_with_3(tmp_path, capsys):
    (tmp_path / "bad.json").write_text("{}")
    assert _run(["compare", str(tmp_path / "bad.json")]) == 3
    assert "is not a result" in capsys.readouterr().err
