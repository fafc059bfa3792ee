"""Writes are atomic, and outputs that cannot be written are errors before the work begins."""

import errno
import os
import resource
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from mobiledeploy.errors import RuntimeFailedError, UsageError
from mobiledeploy.pipeline import deploy as _deploy
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.stages import FloatModel
from mobiledeploy.utils.files import (
    STDOUT,
    moved_when_done,
    require_different_files,
    require_writable,
    require_writable_files,
    temporary_folder,
    write_text,
    write_whole,
)

INFO = SimpleNamespace(outputs=())  # all that is asked before the work
NO_MODEL = FloatModel(info=INFO, module=None)


def test_a_failed_write_keeps_the_former_file(tmp_path):
    path = tmp_path / "new" / "file"
    with write_whole(path) as part:
        part.write_text("first")
    with pytest.raises(ZeroDivisionError), write_whole(path) as part:
        part.write_text(f"second, {1 / part.write_text('')}")  # fails after writing has begun
    assert path.read_text() == "first"
    assert list(path.parent.iterdir()) == [path]


def test_a_written_file_has_the_mode_that_the_umask_gives(tmp_path):
    with write_whole(tmp_path / "file") as part:
        part.write_text("")
    (tmp_path / "ordinary").touch()
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_a_hyphen_is_stdout_for_one_output_only(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    require_writable_files(STDOUT, Path("file"), None)
    write_text(STDOUT, "found\n")
    write_text(STDOUT, "\udcff\n")
    assert capsys.readouterr().out == "found\n\\udcff\n"
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match="Two outputs are -"):
        require_writable_files(STDOUT, Path("-"))


def test_an_output_does_not_overwrite_an_input(tmp_path):
    baseline, link = tmp_path / "baseline.json", tmp_path / "link.json"
    baseline.write_text("{}")
    link.symlink_to(baseline)
    require_writable_files(tmp_path / "other.json", STDOUT, read=(baseline, None))
    for output in (baseline, link):
        with pytest.raises(UsageError, match="is an input of this command"):
            require_writable_files(output, read=(None, baseline))


def texts_in(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_files_are_replaced_together(tmp_path):
    for text in ("first", "second"):
        with moved_when_done(tmp_path) as folder:
            for name in "ab":
                (folder / name).write_text(text)
        assert texts_in(tmp_path) == {"a": text, "b": text}
    with pytest.raises(ZeroDivisionError), moved_when_done(tmp_path) as folder:
        (folder / "a").write_text(f"third, {1 / (folder / 'b').write_text('')}")
    assert texts_in(tmp_path) == {"a": "second", "b": "second"}


@pytest.mark.ci
def test_an_export_whose_manifest_cannot_be_written_keeps_the_former_pair(tmp_path, monkeypatch):
    """The new artifact must not be left beside the manifest of the former one."""
    kind = {"weights": "random", "width": 0.25, "resolution": 32, "num_classes": 2}
    how = {"formats": ["onnx"], "calibration": None, "out": tmp_path, "parity": False}
    deploy(build("v1", **kind), **how)
    former = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(former) == 2

    def disk_is_full(*_, **__):
        raise RuntimeFailedError("No space left on device")

    monkeypatch.setattr(_deploy, "write_manifest", disk_is_full)
    other = build("v1", preprocessing={"crop_pct": 0.5}, **kind)
    with pytest.raises(RuntimeFailedError, match="No space left"):
        deploy(other, **how)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == former


def test_an_error_in_the_hidden_folder_names_the_real_one(tmp_path):
    with (
        pytest.raises(RuntimeFailedError, match=f"Could not write {tmp_path / 'aaa'}"),
        moved_when_done(tmp_path) as folder,
    ):
        require_writable(folder / ("a" * 300))


def test_a_file_that_cannot_be_moved_is_named(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    with (
        pytest.raises(RuntimeFailedError, match=f"Could not write {tmp_path / 'a'}"),
        moved_when_done(tmp_path) as folder,
    ):
        (folder / "a").touch()


def test_two_writers_of_one_folder_do_not_mix_their_files(tmp_path, monkeypatch):
    real = Path.replace
    pauses_s = {("first", "b"): 0.4, ("second", "a"): 0.2}  # first moves a, second a and b, first b

    def slowly(path, target):
        time.sleep(pauses_s.get((path.read_text(), path.name), 0))
        return real(path, target)

    def write(text):
        with moved_when_done(tmp_path) as folder:
            for name in "ab":
                (folder / name).write_text(text)
            ready.wait()

    ready = threading.Barrier(2)
    monkeypatch.setattr(Path, "replace", slowly)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ("first", "second")))
    assert texts_in(tmp_path) in ({"a": "first", "b": "first"}, {"a": "second", "b": "second"})


def test_if_one_file_cannot_be_moved_none_is(tmp_path):
    (tmp_path / "b").mkdir()
    with (
        pytest.raises(RuntimeFailedError, match="it is a folder"),
        moved_when_done(tmp_path) as folder,
    ):
        [(folder / name).touch() for name in "ab"]
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_missing_folder_is_created_and_left_empty(tmp_path):
    require_writable(tmp_path / "a" / "b")
    require_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


@pytest.mark.parametrize(
    ("folder", "reason"),
    [("file", "File exists"), ("file/below", "Not a directory"), ("/proc/nothing", "No such file")],
)
def test_a_folder_that_cannot_be_written_is_an_error_before_the_work(tmp_path, folder, reason):
    (tmp_path / "file").touch()
    out = tmp_path / folder  # an absolute path stays as it is
    with pytest.raises(RuntimeFailedError, match=f"Could not write {out}: {reason}") as error:
        deploy(NO_MODEL, calibration=None, out=out)
    assert "Choose a writable folder" in error.value.remedy


def test_checking_an_output_does_not_change_it(tmp_path):
    path = tmp_path / "new" / "file"
    require_writable_files(path)
    assert list(path.parent.iterdir()) == []
    path.write_text("former")
    require_writable_files(path)
    assert path.read_text() == "former"


def test_two_outputs_must_be_different_files(tmp_path):
    (tmp_path / "link").symlink_to("one.json")
    with pytest.raises(UsageError, match=r"Two outputs are .*link"):
        require_writable_files(tmp_path / "one.json", None, tmp_path / "link")
    require_writable_files(tmp_path / "one.json", tmp_path / "other.json", Path("/dev/null"))


def test_checking_for_equal_outputs_creates_no_folder(tmp_path):
    """A history is appended to, so its folder need not be writable."""
    require_different_files(tmp_path / "closed" / "history.jsonl", tmp_path / "one.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
def test_a_folder_without_permission_is_an_error(tmp_path):
    tmp_path.chmod(0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(RuntimeFailedError, match=r"Could not write .*: Permission denied"):
            require_writable_files(tmp_path / "out.json")
        with (
            pytest.raises(RuntimeFailedError, match=r"Could not write .*: Permission denied"),
            write_whole(tmp_path / "out.json"),
        ):
            pass
    finally:
        os.seteuid(0)


def test_a_loop_of_links_is_an_error(tmp_path):
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    with pytest.raises(RuntimeFailedError, match=r"Could not write .*one"):
        require_writable_files(tmp_path / "one")


def test_a_link_stays_a_link_to_the_new_file(tmp_path):
    (tmp_path / "latest.json").symlink_to("first.json")
    with write_whole(tmp_path / "latest.json") as part:
        part.write_text("found")
    assert (tmp_path / "latest.json").is_symlink()
    assert (tmp_path / "first.json").read_text() == "found"


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe")
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        require_writable_files(pipe)
        with write_whole(pipe) as part:
            part.write_text("found")
        assert read.result(timeout=20) == "found"
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_folder_cannot_be_an_output(tmp_path):
    with pytest.raises(RuntimeFailedError, match=f"Could not write {tmp_path}: it is a folder"):
        require_writable_files(tmp_path)


def test_a_folder_name_that_is_not_utf8_is_an_error_before_the_work(tmp_path):
    """The runtimes take paths as UTF-8 and would fail only after the export."""
    out = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(UsageError, match=r"caf\\xe9' is not UTF-8"):
        deploy(NO_MODEL, calibration=None, out=out)
    assert not out.exists()


@contextmanager
def small_files():
    """Limit files to 1000 bytes, which fails like a full disk.

    Only during the write under test, because the log of the tests is a file as well.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_fails_halfway_leaves_no_file(tmp_path):
    with (
        pytest.raises(RuntimeFailedError, match=r"Could not write .*: File too large"),
        small_files(),
        write_whole(tmp_path / "file") as part,
    ):
        part.write_bytes(bytes(10_000))
    assert list(tmp_path.iterdir()) == []


def test_temporary_files_that_have_no_room_are_refused_with_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    no_room = pytest.raises(RuntimeFailedError, match=f"no room for temporary files in {tmp_path}")
    with no_room, temporary_folder(10**18):
        pytest.fail("the folder was given out")
    full = pytest.raises(RuntimeFailedError, match="No space left on device")
    with full, temporary_folder(1):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with temporary_folder(1) as folder:
        assert folder.parent == tmp_path
    assert not list(tmp_path.iterdir())
