"""A sweep loses no point and measures none twice, whatever kills a part of it or fills the disk."""

import json
import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
GRID = ("--model", "v1,v2,v3-small", "--width", 0.25, "--resolution", 32, "--weights", "random")
OPTIONS = (*GRID, "--ptq", "fast", "--runs", 2, "--jobs", 2)


@pytest.fixture
def start(console_script, offline_environment, workplace, tmp_path):
    """Start a sweep; processes that are left at the end are killed."""
    processes = []

    def run(out="sweep", cwd=tmp_path):
        arguments = ("sweep", *OPTIONS, "--calib-data", workplace / "pictures", "--out", out)
        process = subprocess.Popen(
            [console_script, *map(str, arguments), "--json", "sweep.json"],
            cwd=cwd,
            env=offline_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def finish(process):
    """Wait for a sweep; return its exit code and what it printed."""
    text, _ = process.communicate(timeout=600)
    return process.returncode, text


def children(parent):
    """Return the ids of the commands of a sweep."""
    wanted = [b"mobiledeploy.sweep.child", str(parent).encode()]
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if words[2:4] == wanted:
            found.append(int(path.parent.name))
    return found


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def rows(database):
    """Return the stored results by identity."""
    if not database.exists():
        return {}
    with closing(sqlite3.connect(database)) as connection:
        try:
            found = connection.execute("SELECT identity, state, artifacts FROM results").fetchall()
        except sqlite3.OperationalError:  # no table yet
            return {}
    return {identity: (state, artifacts) for identity, state, artifacts in found}


def states(database):
    return sorted(state for state, _ in rows(database).values())


def written(folder):
    """Return when each artifact was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.onnx")}


def test_a_killed_export_is_made_again_in_the_same_sweep(start, tmp_path):
    sweep = start()
    (victim, *_) = wait_until(lambda: children(sweep.pid))
    os.kill(victim, signal.SIGKILL)
    code, text = finish(sweep)
    assert code == 0, text
    assert states(tmp_path / "sweep" / "sweep.sqlite") == ["done"] * 3


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_sweep_goes_on_without_doing_anything_twice(start, tmp_path, number):
    database = tmp_path / "sweep" / "sweep.sqlite"
    sweep = start()
    wait_until(lambda: "exported" in states(database) and children(sweep.pid))
    left = children(sweep.pid)
    sweep.send_signal(number)
    code, text = finish(sweep)
    assert code == (-number if number == signal.SIGKILL else 128 + number), text
    wait_until(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in left), seconds=60)
    kept = {identity for identity, (state, _) in rows(database).items() if state == "exported"}
    assert kept
    artifacts = written(tmp_path / "sweep")

    code, text = finish(start())
    assert code == 0, text
    assert states(database) == ["done"] * 3
    after = written(tmp_path / "sweep")
    for identity in kept:  # what was stored was not exported again
        (path,) = (each for each in after if identity[:8] in str(each))
        assert after[path] == artifacts[path]
    leftovers = [path.name for path in (tmp_path / "sweep").rglob(".*")]
    assert leftovers == []

    measured = rows(database)
    code, text = finish(start())
    assert code == 0, text
    assert rows(database) == measured


def test_a_full_disk_interrupts_points_that_the_next_sweep_makes(start, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1800k", "tmpfs", disk]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("tmpfs cannot be mounted")
    try:
        code, text = finish(start(out="disk/sweep"))
        database = disk / "sweep" / "sweep.sqlite"
        before = rows(database)
        assert (code, "No space left on device" in text) in {(0, True), (4, True)}, text
        assert len(states(database)) < 3 or "interrupted" in states(database)
        subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
        code, text = finish(start(out="disk/sweep"))
        assert code == 0, text
        assert states(database) == ["done"] * 3
        for identity, (state, artifacts) in before.items():
            if state == "done":
                assert rows(database)[identity] == (state, artifacts)
    finally:
        subprocess.run(["umount", disk], check=True)
    document = json.loads((tmp_path / "sweep.json").read_text())
    assert [point["state"] for point in document["points"]] == ["done"] * 3
