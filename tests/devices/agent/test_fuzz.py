"""Hostile requests to the agent: it answers or ends, and leaves nothing."""

import contextlib
import os
import subprocess
import sys
from random import Random

import pytest

from fuzz.requests import (
    Case,
    answer,
    byte_cases,
    cut_cases,
    file_cases,
    name_cases,
    problem,
    random_cases,
    seed_of,
    value_cases,
    with_file,
)
from mobiledeploy.devices.agent import BOOTSTRAP, bundle

pytestmark = pytest.mark.ci  # each case starts a Python

ARGV = [sys.executable, "-c", BOOTSTRAP]
SEED = seed_of("outputs", ".onnx", sends_inputs=True)


def findings(cases, folder, idle_s=3.0):
    """Give the cases to the agent; return what is wrong with its answers, and how they ended."""
    source = bundle()
    start = b"%d\n" % len(source) + source
    found, sent = {}, b""
    for case in cases:
        started = Case(case.name, (start, *case.writes), case.is_cut)
        got = answer(ARGV, started, folder, idle_s=idle_s)
        sent += got.sent
        if wrong := problem(case, got):
            found[case.name] = wrong + got.log[-500:]
    return found, sent


def test_damaged_requests(tmp_path):
    cases = [*byte_cases(SEED), *Random(1).sample([*cut_cases(SEED)], 4)]
    found, sent = findings(cases, tmp_path)
    assert found == {}
    assert b'{"result"' in sent  # that of the request which arrives in many parts


def test_wrong_values(tmp_path):
    bench = seed_of("bench", ".onnx", ".tflite")
    cases = [case for seed in (SEED, bench) for case in (*value_cases(seed), *name_cases(seed))]
    cases = [*Random(2).sample(cases, 20), *random_cases(SEED, 5, Random(3))]
    assert findings(cases, tmp_path)[0] == {}


def test_wrong_operators(tmp_path):
    seed = seed_of("profile", ".pte", limit_s=20)
    path = seed.message["artifacts"][0]["file"]
    operator = {"file": path, "label": "conv", "inputs": [["float32", [1, 3, 32, 32]]]}
    seed.message["operators"] = [operator]
    valid = Case("valid", (seed.line(), seed.content))
    cases = []
    for inputs in ([], [["int8", [1, 3, 32, 32]]], [["float32", [2**30]]], [["x", []]]):
        message = seed.message | {"operators": [operator | {"inputs": inputs}]}
        cases.append(Case(f"{inputs}", (seed.line(message), seed.content)))
    found, sent = findings([valid, *cases], tmp_path, idle_s=25.0)
    assert found == {}
    assert sent.count(b'{"result"') == 1
    assert sent.count(b"The program of conv takes") == len(cases)


def test_damaged_samples(tmp_path):
    name = "0/inputs.npy"
    npy = SEED.files[name]
    shapes = (b"(%d, 3, 32, 32)" % 2**31, b"(2, -3, 32, 32)", b"()", b"(" * 60)
    changed = [npy.replace(b"(2, 3, 32, 32)", shape.ljust(14)) for shape in shapes]
    changed += [b"", npy[:9], npy[:60], npy[:-1], npy.replace(b"<f4", b"|O8"), b"PK\3\4" + npy]
    cases = [with_file(SEED, name, data, f"{data[:90]!r}") for data in changed]
    cases += file_cases(SEED, 5, name, Random(4))
    found, sent = findings(cases, tmp_path)
    assert found == {}
    assert sent.count(b"are not a .npy file of samples") >= len(changed) - 1


@pytest.mark.parametrize("asked", [SEED.line() + SEED.content, b"{}\n"], ids=["task", "error"])
@pytest.mark.parametrize("reads_hello", [False, True])
def test_the_other_side_stops_reading(asked, reads_hello, tmp_path):
    source = bundle()
    (tmp_path / "tmp").mkdir()
    with subprocess.Popen(
        ARGV,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
    ) as process:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"%d\n" % len(source) + source)
            if reads_hello:
                process.stdout.readline()
            process.stdout.close()
            process.stdin.write(asked)
        assert (process.wait(20), process.stderr.read()) == (1, b"")
    assert list((tmp_path / "tmp").iterdir()) == []
