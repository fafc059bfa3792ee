"""Option values that make no sense are usage errors before anything is loaded."""

import signal
import subprocess
import sys

import pytest

from mobiledeploy.cli import _run

BENCH, PARITY = ("bench", "no.onnx"), ("parity", "no.onnx")
EXPORT = ("export", "v2", "--int8", "--weights", "random")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((*BENCH, "--min-sqnr", "nan"), "nan is not a number"),
        ((*PARITY, "--min-sqnr", "nan"), "nan is not a number"),
        ((*PARITY, "--min-agreement", "nan"), "--min-agreement"),
        ((*EXPORT, "--min-sqnr", "nan"), "nan is not a number"),
        ((*BENCH, "--timeout", "inf"), "--timeout"),
        ((*PARITY, "--timeout", "inf"), "--timeout"),
        ((*BENCH, "--cool-down", "inf"), "--cool-down"),
        ((*BENCH, "--threads", "99999999"), "--threads"),
        ((*BENCH, "--max-regress", "5%"), "--max-regress needs --baseline"),
        (("models", "v2", "--resolution", "99999999"), "at most 4096"),
    ],
)
def test_a_value_that_makes_no_sense_is_a_usage_error(words, said, capsys):
    assert _run(words) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_an_infinite_duration_is_a_usage_error(capsys, tmp_path):
    (tmp_path / "a.onnx").touch()
    assert _run(["bench", str(tmp_path / "a.onnx"), "--duration", "inf"]) == 2
    assert "expected a finite number" in capsys.readouterr().err


def test_a_command_under_nohup_survives_a_closed_terminal():
    code = """
import os, signal
import mobiledeploy.cli as cli

cli.app = lambda **_: os.kill(os.getpid(), signal.SIGHUP)
cli.main([])
"""
    ignoring = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    for before, returned in ((ignoring, 0), (None, 128 + signal.SIGHUP)):
        done = subprocess.run([sys.executable, "-c", code], preexec_fn=before, check=False)
        assert done.returncode == returned
