"""`mobiledeploy sweep` with real commands on tiny networks."""

import csv
import json
import sqlite3
from importlib.util import find_spec

import pytest
import real_parts
from refusals import refused

GRID = """
model: [v1, v2]
width: 0.25
resolution: 32
weights: random
ptq: fast
"""
OPTIONS = ("--grid", "grid.yml", "--calib-data", "pictures", "--runs", 2, "--jobs", 2)


@pytest.fixture(scope="module")
def swept(mobiledeploy, workplace):
    (workplace / "grid.yml").write_text(GRID)
    done = mobiledeploy("sweep", *OPTIONS, "--json", "first.json", cwd=workplace)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.ci
def test_every_point_is_exported_and_measured(swept, workplace):
    document = json.loads((workplace / "first.json").read_text())
    assert [point["state"] for point in document["points"]] == ["done", "done"]
    assert [artifact["model"] for artifact in document["artifacts"]] == ["v1", "v2"]
    for artifact in document["artifacts"]:
        assert (workplace / artifact["path"]).stat().st_size == artifact["size_bytes"]
        assert artifact["latency_ms"]["local"] > 0
    assert document["pick"] is None  # random weights were not evaluated
    assert "v2, width 0.25, 32 pixels, fast, random (.onnx)" in swept.stdout
    assert "No pick: no accuracy was measured" in swept.stdout


def stored(database):
    connection = sqlite3.connect(database)
    try:
        return connection.execute("SELECT * FROM results").fetchall()
    finally:
        connection.close()


@pytest.mark.ci
def test_a_second_run_takes_what_is_there(swept, mobiledeploy, workplace):
    assert swept.returncode == 0
    database = workplace / "sweep" / "sweep.sqlite"
    before = stored(database)
    done = mobiledeploy("sweep", *OPTIONS, "--csv", "table.csv", cwd=workplace)
    assert done.returncode == 0, done.stderr
    assert stored(database) == before
    rows = list(csv.DictReader((workplace / "table.csv").read_text().splitlines()))
    assert [row["model"] for row in rows] == ["v1", "v2"]
    assert float(rows[0]["latency_ms local"]) > 0
    assert rows[0]["machines local"]
    assert int(rows[0]["macs"]) > 0


@pytest.mark.ci
def test_the_page_is_written(swept, mobiledeploy, workplace):
    assert swept.returncode == 0
    if find_spec("plotly") is None:
        real_parts.missing("plotly", 'pip install "mobiledeploy[html]"')
    done = mobiledeploy("sweep", *OPTIONS, "--html", "page.html", cwd=workplace)
    assert done.returncode == 0, done.stderr
    page = (workplace / "page.html").read_text()
    assert "No pick: no accuracy was measured" in page
    assert "v2, width 0.25, 32 pixels, fast, random (.onnx)" in page


@pytest.mark.ci
def test_nothing_within_the_budget_fails(swept, mobiledeploy, workplace):
    assert swept.returncode == 0
    done = mobiledeploy("sweep", *OPTIONS, "--max-size", 0.001, cwd=workplace)
    refused(done, 1, "No artifact keeps the budget")
    assert "misses the budget" in done.stdout


def artifacts(folder):
    """Return the contents of all artifacts by name."""
    found = (path for suffix in ("onnx", "pte") for path in folder.rglob(f"*.{suffix}"))
    return {path.name: path.read_bytes() for path in found}


@pytest.mark.slow
def test_artifacts_of_one_process_are_those_of_single_exports(mobiledeploy, workplace):
    """A process of a sweep has made other networks before."""
    options = ("--resolution", 32, "--width", 0.25, "--weights", "random", "--ptq", "fast")
    options += ("--format", "onnx", "--format", "pte", "--calib-data", "pictures")
    families = ("v2", "v1", "v3-small")
    sweep = ("sweep", "--model", ",".join(families), *options, "--runs", 2, "--out", "kept")
    assert mobiledeploy(*sweep, cwd=workplace).returncode == 0
    for family in families:
        export = ("export", family, "--int8", *options, "--out", "single")
        assert mobiledeploy(*export, cwd=workplace).returncode == 0
    assert len(artifacts(workplace / "kept")) == 6
    assert artifacts(workplace / "kept") == artifacts(workplace / "single")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "A sweep needs a model"),
        (["--model", "v2", "--width", "wide"], "--width is 'wide'"),
        (["--model", "v2", "--grid", "grid.yml"], "--grid replaces --model"),
        (["--model", "v2", "--device", "foo://x"], "'foo://x' is not a device"),
        (["--model", "v2", "--cluster", "10.0.0.1"], "expected ray, or ray://HOST:PORT"),
        (["--model", "v2", "--cluster", "ray", "--jobs", "2"], "--jobs is for this machine"),
        (["--model", "net.py:create", "--cluster", "ray"], "net.py:create is code of this machine"),
        (["--model", "v2", "--device", "pi=foo://x"], "'foo://x' is not a device"),
        (["--model", "v2", "--input", "rgb"], "--input is 'rgb'; expected one of float"),
        (["--model", "v2", "--count-instructions"], "--count-instructions needs an exec: device"),
    ],
)
def test_wrong_options_are_refused(mobiledeploy, tmp_path, words, message):
    refused(mobiledeploy("sweep", *words, cwd=tmp_path), 2, message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--grid", "missing.yml"], "Could not read missing.yml"),
        (["--model", "v2", "--data", "missing"], "There is no file or folder missing"),
        (["--model", "v2", "--calib-data", "missing"], "There is no file or folder missing"),
    ],
)
def test_missing_files_are_refused(mobiledeploy, tmp_path, words, message):
    refused(mobiledeploy("sweep", *words, cwd=tmp_path), 3, message)
    assert list(tmp_path.iterdir()) == []
