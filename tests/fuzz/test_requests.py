"""Hostile requests are reproducible, and every wrong answer to one is noticed."""

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from fuzz import requests
from fuzz.requests import Case, answer, problem, seed_of

CASE = Case("asked", (b"{}\n",))
SENDS = "import json, os, sys, time\ndef send(**m): print('\\x1e' + json.dumps(m), flush=True)\n"
HELLO = SENDS + "send(hello={})\n"


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (HELLO + "send(result=1)", ""),
        (HELLO + "send(error={'type': 'ArtifactError'})", ""),
        (HELLO + "send(died={'how': 'took more than 2 s and was stopped'})", ""),
        (HELLO + "send(error={'type': 'Path'})", "no class is named Path"),
        (HELLO + "send(died={'how': 'was ended by SIGSEGV'})", "the task was ended by SIGSEGV"),
        (HELLO, "the last message is {'hello'"),
        ("print('{}')", "it sent no JSON"),
        (HELLO + "send(result=1); sys.exit(3)", "it ended with code 3"),
        (HELLO + "send(result=1); os.abort()", "it ended with code -6"),
        (HELLO + "send(result=1); os.fork() or time.sleep(60)", "it ended with code -9"),
        (HELLO + "send(result=1); open(os.environ['TMPDIR'] + '/x', 'w')", "it left"),
        (HELLO + "send(result=1); {}[0]", "it printed ['Traceback']|it ended with code 1"),
    ],
)
def test_a_wrong_answer_is_noticed(script, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(requests, "PATIENCE_S", 1.0)
    found = problem(CASE, answer([sys.executable, "-c", script], CASE, tmp_path, idle_s=0.1))
    assert any(found.startswith(each) for each in expected.split("|")) if expected else not found


IN_A_SMALL_PROCESS = """
import sys
from pathlib import Path
from fuzz import requests
requests.RESIDENT_BYTES = 64 << 20
case = requests.Case("asked", (b"{}\\n",))
found = requests.answer([sys.executable, "-c", sys.argv[1]], case, Path(sys.argv[2]), idle_s=0.1)
print(requests.problem(case, found))
"""


@pytest.mark.parametrize(("mib", "expected"), [(1, ""), (100, "it needed 1")])
def test_too_much_memory_is_noticed(mib, expected, tmp_path):
    """A process begins with the peak of the one that starts it: here a shell, not a test run."""
    script = HELLO + f"x = bytearray({mib} << 20); x[::4096] = x[::4096]; send(result=1)"
    done = subprocess.run(
        [
            "sh",
            "-c",
            '"$@"; exit $?',
            "",
            sys.executable,
            "-c",
            IN_A_SMALL_PROCESS,
            script,
            tmp_path,
        ],
        cwd=Path(requests.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(expected) if expected else done.stdout == "\n"


def test_nothing_is_asked_by_an_empty_request(tmp_path):
    empty = Case("empty", (), is_cut=True)
    assert problem(empty, answer([sys.executable, "-c", HELLO], empty, tmp_path)) == ""


def test_requests_are_reproducible_and_different():
    seed = seed_of("outputs", ".onnx", sends_inputs=True)
    first, second = (
        [*requests.random_cases(seed, 50, Random(3)), *requests.value_cases(seed)] for _ in range(2)
    )
    assert first == second
    assert len({case.writes for case in first}) > 0.8 * len(first) > 400
