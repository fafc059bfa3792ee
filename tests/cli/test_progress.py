"""Steps are numbered, named once, and leave one line each."""

import io
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console
from rich.text import Text

from mobiledeploy.cli import progress
from mobiledeploy.cli.progress import RichReporter

SECONDS = r"\d+\.\d s"


@pytest.fixture(params=[False, True], ids=["pipe", "terminal"])
def lines(request, monkeypatch):
    """A function that returns the lines printed so far, without the seconds at their end.

    They are printed once as to a pipe and once as to a terminal.
    """
    text = io.StringIO()
    console = Console(
        file=text,
        highlight=False,
        markup=False,
        emoji=False,
        force_terminal=request.param,
        width=80,
    )
    monkeypatch.setattr(progress, "console", lambda: console)

    def printed() -> list[str]:
        plain = [Text.from_ansi(line).plain for line in text.getvalue().splitlines()]
        matches = [re.fullmatch(f"(.+) {SECONDS}", line) for line in plain]
        return [match[1] for match in matches if match]

    return printed


@pytest.mark.parametrize("name", ["net[red].onnx", "q[/x].onnx", "a:x:[/].onnx", "x " * 60])
def test_a_step_leaves_a_line_with_its_name_and_seconds(lines, name):
    reporter = RichReporter()
    with reporter.step(f"Counting {name}"):
        pass
    assert list(reporter.track([1, 2], f"Timing {name}", 2)) == [1, 2]
    assert lines() == [f"  Counting {name}", f"  Timing {name}"]


def test_outer_steps_are_numbered(lines):
    reporter = RichReporter(total=10)
    for _ in range(9):
        with reporter.step("Folding"):
            pass
    assert list(reporter.track([1], "Timing", 1)) == [1]
    assert lines()[0] == "   1/10 Folding"
    assert lines()[-1] == "  10/10 Timing"


def test_a_step_within_a_step_leaves_a_line_only_if_it_takes_long(lines, monkeypatch):
    reporter = RichReporter(total=1)
    with reporter.step("Quantizing"):
        for seconds in (9.0, 0.0):
            monkeypatch.setattr(progress, "_LONG_S", seconds)
            assert list(reporter.track([1], "Choosing ranges", 1)) == [1]
            with reporter.step("Rounding"):
                pass
    assert lines() == [
        "  1/1 Quantizing: choosing ranges",
        "  1/1 Quantizing: rounding",
        "  1/1 Quantizing",
    ]


def test_no_step_is_named_twice(lines, monkeypatch):
    monkeypatch.setattr(progress, "_LONG_S", 0.0)
    reporter = RichReporter(total=2)
    for outer in ("Learning", "Quantizing"):
        with reporter.step(outer):
            for _ in range(2):
                with reporter.step("Choosing ranges"):
                    pass
    assert lines() == [
        "  1/2 Learning: choosing ranges",
        "  1/2 Learning",
        "  2/2 Quantizing: choosing ranges",
        "  2/2 Quantizing",
    ]


def test_a_step_that_fails_leaves_no_line(lines):
    reporter = RichReporter()
    with pytest.raises(ZeroDivisionError), reporter.step("Dividing"):
        _ = 1 / 0
    with reporter.step("Adding"):
        pass
    assert lines() == ["  Adding"]


def test_a_terminal_shows_the_running_steps_with_the_elapsed_time():
    code = """
import time
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.utils.progress import step

with showing_progress(7), step("Lowering"), step("Serializing"):
    time.sleep(1.5)
"""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=theirs,
        stderr=theirs,
        env=os.environ | {"TERM": "xterm"},
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
    os.close(ours)
    assert process.returncode == 0
    text = shown.decode()
    assert re.search(r"1/7 Lowering\S* .*0:00:01", text)
    assert re.search(r"Serializing\S* .*0:00:01", text)
    assert re.search(rf"  1/7 Lowering \S*{SECONDS}", text)
