"""Signals wait until files that belong together are moved or removed."""

import os
import signal
import threading
from pathlib import Path

import pytest

from mobiledeploy.utils import files
from mobiledeploy.utils.files import moved_when_done, removed_when_done, write_whole
from mobiledeploy.utils.uninterrupted import uninterrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers():
    """Handlers as the command line has them; they are the same after each test."""

    def stop(_number, _frame):
        raise KeyboardInterrupt

    before = [signal.signal(number, stop) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == [stop] * 3
    for number, handler in zip(SIGNALS, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_end_of_the_block(number):
    done = []

    def work():
        with uninterrupted():
            signal.raise_signal(number)
            done.append(number)

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == [number]


def test_an_error_of_the_block_is_not_lost():
    def work(*, stopped):
        with uninterrupted():
            if stopped:
                signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work(stopped=False)
    with pytest.raises(KeyboardInterrupt) as caught:
        work(stopped=True)
    assert isinstance(caught.value.__context__, ZeroDivisionError)


def test_an_ignored_signal_stays_ignored():
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with uninterrupted():
        signal.raise_signal(signal.SIGHUP)
    assert signal.signal(signal.SIGHUP, handler) is signal.SIG_IGN


def test_other_threads_run_the_block_as_it_is():
    done = []

    def work():
        with uninterrupted():
            done.append(threading.current_thread())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [thread]


def interrupting(function):
    """Return the function; a signal arrives whenever it has been called."""

    def interrupted(*arguments, **options):
        result = function(*arguments, **options)
        os.kill(os.getpid(), signal.SIGTERM)
        return result

    return interrupted


def test_files_that_belong_together_are_moved_together(tmp_path, monkeypatch):
    def work():
        with moved_when_done(tmp_path) as folder:
            for name in ("a", "b"):
                (folder / name).write_text("new")
            monkeypatch.setattr(Path, "replace", interrupting(Path.replace))

    for name in ("a", "b"):
        (tmp_path / name).write_text("old")
    with pytest.raises(KeyboardInterrupt):
        work()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "new", "b": "new"}


@pytest.mark.parametrize(
    ("name", "create"),
    [
        ("TemporaryDirectory", lambda folder: removed_when_done("a", dir=folder)),
        ("NamedTemporaryFile", lambda folder: write_whole(folder / "a")),
    ],
)
def test_a_signal_while_something_is_created_leaves_nothing(tmp_path, monkeypatch, name, create):
    monkeypatch.setattr(files, name, interrupting(getattr(files, name)))
    with pytest.raises(KeyboardInterrupt), create(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_signal_while_a_folder_is_emptied_leaves_nothing(tmp_path, monkeypatch):
    def work():
        with removed_when_done("a", dir=tmp_path) as folder:
            for number in range(3):
                (folder / str(number)).touch()
            monkeypatch.setattr(os, "unlink", interrupting(os.unlink))

    with pytest.raises(KeyboardInterrupt):
        work()
    assert list(tmp_path.iterdir()) == []
