"""Results survive in one file."""

import sqlite3

import pytest

from mobiledeploy.errors import DataError
from mobiledeploy.sweep.points import Point
from mobiledeploy.sweep.store import MeasuredArtifact, Result, Store

ARTIFACT = MeasuredArtifact(
    path="a.onnx", sha256="a0", size_bytes=10, sqnr_db=24.5, latency_ms={"local": 1.5}
)
RESULT = Result(point=Point(model="v2", width=0.5), state="done", artifacts=(ARTIFACT,))


def test_results_are_found_again(tmp_path):
    with Store(tmp_path / "a.sqlite") as store:
        assert store.get("x") is None
        store.put("x", RESULT)
    with Store(tmp_path / "a.sqlite") as store:
        assert store.get("x") == RESULT
        failed = Result(point=RESULT.point, state="failed", error="no images")
        store.put("x", failed)
        assert store.get("x") == failed


def test_an_unfinished_write_leaves_the_earlier_result(tmp_path):
    path = tmp_path / "a.sqlite"
    with Store(path) as store:
        store.put("x", RESULT)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE results SET state = 'failed'")  # never committed, as after a crash
    connection.close()
    with Store(path) as store:
        assert store.get("x") == RESULT


@pytest.mark.parametrize("content", [b"no database, but long enough to be one" * 40, b"x" * 100])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "a.sqlite"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged, or is no result"):
        Store(path)


def test_another_version_is_refused(tmp_path):
    path = tmp_path / "a.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 7")
    connection.close()
    with pytest.raises(DataError, match="another version"):
        Store(path)


def test_damaged_rows_are_refused(tmp_path):
    path = tmp_path / "a.sqlite"
    with Store(path) as store:
        store.put("x", RESULT)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE results SET point = '{'")
    connection.close()
    with Store(path) as store, pytest.raises(DataError, match="damaged"):
        store.get("x")
