"""Option values that make no sense are usage errors before anything is loaded."""

import signal
import subprocess
import sys

import pytest

from mobiledeploy.cli import _run
from mobiledeploy.cli.values import (
    mixed_precision,
    parse_celsius,
    parse_keep_float,
    parse_resolution,
    parse_seconds,
)
from mobiledeploy.errors import UsageError
from mobiledeploy.quantization.mixed_precision import MixedPrecision

BENCH, PARITY = ("bench", "no.onnx"), ("parity", "no.onnx")
EXPORT = ("export", "v2", "--int8", "--weights", "random")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*BENCH, "--min-sqnr", "nan"), "nan is not a number"),
        ((*PARITY, "--min-sqnr", "nan"), "nan is not a number"),
        ((*PARITY, "--min-agreement", "nan"), "--min-agreement"),
        ((*EXPORT, "--min-sqnr", "nan"), "nan is not a number"),
        ((*BENCH, "--timeout", "inf"), "--timeout"),
        ((*PARITY, "--timeout", "inf"), "--timeout"),
        ((*BENCH, "--cool-down", "inf"), "'inf' is not a number from 0 to 86400, for example 30s."),
        ((*BENCH, "--cool-down", "30m"), "--cool-down"),
        ((*BENCH, "--wait-below", "37F"), "'37F' is not a number from 0 to 150, for example 37C."),
        ((*BENCH, "--cores", "fast"), "'fast' is not one of 'big', 'little', 'all'"),
        ((*BENCH, "--cores", "big", "--cpu-affinity", "1"), "exclude one another"),
        ((*BENCH, "--threads", "99999999"), "--threads"),
        ((*BENCH, "--max-regress", "5%"), "--max-regress needs --baseline"),
        (("models", "v2", "--resolution", "99999999"), "at most 4096"),
        (
            ("export", "v2", "--ptq", "fast"),
            "--ptq needs --int8, which was not given. Try: Add --int8, or leave it",
        ),
        (
            ("export", "v2", "--calib-data", "x", "--min-sqnr", "9"),
            "Error: --calib-data and --min-sqnr need --int8",
        ),
        (
            (*PARITY, "--timeout", "9"),
            "Error: --timeout needs --device, which was not given. Try: Add --device URI",
        ),
        (
            (*PARITY, "--timeout", "9", "--python", "p"),
            "Error: --python and --timeout need --device",
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_a_usage_error(words, message, capsys):
    assert _run(words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_numbers_may_have_their_unit():
    assert (parse_seconds("30s"), parse_seconds("1.5"), parse_seconds(0)) == (30, 1.5, 0)
    assert (parse_celsius("37C"), parse_celsius("36.5")) == (37, 36.5)


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


@pytest.mark.parametrize(
    ("keep_float", "min_sqnr_db", "expected"),
    [
        (None, None, None),
        ("2", None, MixedPrecision(count=2)),
        ("a.b, c", None, MixedPrecision(names=("a.b", "c"))),
        (None, 20.0, MixedPrecision(min_sqnr_db=20.0)),
    ],
)
def test_keep_float_and_min_sqnr_choose_the_float_layers(keep_float, min_sqnr_db, expected):
    assert mixed_precision(parse_keep_float(keep_float, min_sqnr_db), min_sqnr_db) == expected


@pytest.mark.parametrize(
    ("keep_float", "min_sqnr_db", "message"),
    [
        ("0", None, "--keep-float is '0'"),
        ("-1", None, "--keep-float is '-1'"),
        (",", None, "--keep-float is ','"),
        ("-" + "9" * 5000, None, "--keep-float is '-9999"),
        ("2", 20.0, "exclude one another"),
    ],
)
def test_an_invalid_keep_float_is_a_usage_error(keep_float, min_sqnr_db, message):
    with pytest.raises(UsageError, match=message):
        parse_keep_float(keep_float, min_sqnr_db)


@pytest.mark.parametrize(
    ("text", "size"), [(None, None), ("224", 224), ("160x120", (160, 120)), ("96X96", 96)]
)
def test_a_resolution_is_a_side_or_height_and_width(text, size):
    assert parse_resolution(text) == size


@pytest.mark.parametrize("text", ["", "160x", "1x2x3", "-5", "12.5", "big", "9" * 5000])
def test_other_resolutions_are_refused(text):
    with pytest.raises(UsageError, match="expected pixels, or height and width"):
        parse_resolution(text)
