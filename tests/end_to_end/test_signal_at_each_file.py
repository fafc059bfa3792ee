"""A signal before each operation on a file of an export leaves the earlier or the new files."""

import os
import signal
import sys

import pytest
from pairs import contents, quick_export, write_earlier

pytestmark = pytest.mark.ci
EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.scandir"}


class Interrupter:
    """Sends SIGTERM before the nth operation on files in a folder.

    Args:
        folder: The folder.
    """

    def __init__(self, folder):
        self.folder = str(folder)
        self.left = None  # no signal
        sys.addaudithook(self._count)  # cannot be removed

    def after(self, operations):
        self.left = operations

    def _count(self, event, arguments):
        if self.left is None or event not in EVENTS:
            return
        if not any(self.folder in os.fsdecode(each) for each in arguments if _is_path(each)):
            return
        self.left -= 1
        if self.left < 0:
            self.left = None
            os.kill(os.getpid(), signal.SIGTERM)


def _is_path(value):
    return isinstance(value, (str, bytes, os.PathLike))


@pytest.fixture
def stopping():
    """SIGTERM stops as it stops a command."""

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("stopping")
def test_no_operation_leaves_half_an_export(tmp_path, monkeypatch):
    out, temporary = tmp_path / "out", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    interrupter = Interrupter(tmp_path)
    ends = {"earlier": 0, "new": 0}
    with quick_export() as export:
        export(out)
        new = contents(tmp_path)
        for operations in range(1000):
            write_earlier(export, out)
            earlier = contents(tmp_path)
            interrupter.after(operations)
            try:
                export(out)
            except KeyboardInterrupt:
                pass
            else:
                break
            found = contents(tmp_path)
            assert found in (earlier, new), (operations, sorted(found))
            assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == [
                "out",
                "tmp",
            ]
            ends["earlier" if found == earlier else "new"] += 1
    assert ends["earlier"] > 20
    assert ends["new"] > 0
