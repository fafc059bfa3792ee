"""The line of a request: what is read, what is refused, and how that is said."""

import json
from itertools import chain
from random import Random

import pytest

from fuzz.requests import byte_cases, cut_cases, name_cases, random_cases, seed_of, value_cases
from mobiledeploy.devices.agent.errors import AgentError
from mobiledeploy.devices.agent.request import MAX_LINE_BYTES, read_request
from mobiledeploy.devices.agent.tasks import TASKS

SEED = seed_of("outputs", ".onnx", sends_inputs=True)
OPERATOR = {"file": "0/tiny.onnx", "label": "conv", "inputs": [["int8", [1, 3, 8, 8]]]}
FILE = {"name": "0/tiny.onnx", "size": 1, "sha256": ""}


def read(**changes):
    return read_request(SEED.line(SEED.message | changes), list(TASKS))


@pytest.mark.parametrize("task", list(TASKS))
def test_what_is_sent_is_read(task):
    seed = seed_of(task, ".onnx", sends_inputs=True)
    message = seed.message | {"operators": [OPERATOR], "affinity": (0, 3)}
    assert read_request(seed.line(message), list(TASKS)) == json.loads(seed.line(message))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "load"}, 'task is "load"; expected one of bench, instructions, outputs, profile'),
        ({"task": []}, "task is a list; expected a string"),
        ({"threads": 0}, "threads is 0; expected an integer from 1 to 1024"),
        ({"threads": True}, "threads is true; expected an integer from 1 to 1024"),
        ({"threads": 1.0}, r"threads is 1\.0; expected an integer from 1 to 1024"),
        ({"warmup": -1}, "warmup is -1; expected an integer from 0 to 2147483647"),
        ({"rounds": 2**31}, "rounds is 2147483648; expected an integer from 0 to 2147483647"),
        ({"task": "bench", "rounds": 0}, "rounds is 0; expected an integer from 1 to 2147483647"),
        ({"seed": 2**63}, "seed is 9223372036854775808; expected an integer from -9223372036854"),
        ({"limit_s": float("nan")}, "limit_s is NaN; expected a number above 0"),
        ({"duration_s": float("inf")}, "duration_s is Infinity; expected a number above 0"),
        ({"affinity": [0, -1]}, r"affinity\[1\] is -1; expected an integer from 0"),
        ({"artifacts": []}, "it has 0 artifacts; outputs takes 1 or more"),
        ({"task": "profile", "rounds": 1, "artifacts": SEED.message["artifacts"] * 2}, "takes 1$"),
        ({"artifacts": ["x"]}, r'artifacts\[0\] is "x"; expected an object'),
        ({"artifacts": [{"file": "1/tiny.onnx"}]}, "expected the name of a file of the request"),
        ({"files": [FILE | {"name": "../x"}]}, "expected a path inside the folder of the session"),
        (
            {"files": [FILE | {"size": 2**41}]},
            r"files\[0\]\.size is 2199023255552; expected an int",
        ),
        ({"operators": [OPERATOR | {"inputs": [["int8"]]}]}, "expected a datatype and a shape"),
        ({"operators": [OPERATOR | {"inputs": [["int8", [-1]]]}]}, r"inputs\[0\]\[1\]\[0\] is -1"),
        (
            {"unknown": 1, "threads": "x" * 99},
            'threads is "x{59}...; expected',
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_expected(changes, reason):
    with pytest.raises(AgentError, match=f"cannot read the request: .*{reason.rstrip('$')}"):
        read(**changes)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"", "Expecting value"),
        (b"[]", "it is a list; expected an object"),
        (b"{}", "task is missing"),
        (b"\xff", "can't decode byte 0xff"),
        (b'{"task": ' + b"9" * 10_000_000, "it is longer than 4194304 bytes"),
        (b'{"task": ' + b"9" * 1_000_000 + b"}", "An integer has 1000000 digits"),
        (b"[" * 1_000_000, "recursion"),
    ],
)
def test_a_line_that_is_no_request_is_refused(line, reason):
    with pytest.raises(AgentError, match=f"cannot read the request: .*{reason}"):
        read_request(line[: MAX_LINE_BYTES + 1], list(TASKS))


def test_hostile_lines_are_read_or_refused():
    """Every value, every length, and 2000 random changes; whatever is read can be used."""
    bench = seed_of("bench", ".onnx", ".pte")
    cases = chain(
        *((byte_cases(s), name_cases(s), value_cases(s), cut_cases(s)) for s in (SEED, bench)),
        [random_cases(SEED, 1000, Random(1)), random_cases(bench, 1000, Random(2))],
    )
    read_ones, refused = 0, 0
    for case in chain.from_iterable(cases):
        line = b"".join(case.writes).partition(b"\n")[0]
        try:
            request = read_request(line[: MAX_LINE_BYTES + 1], list(TASKS))
        except AgentError as error:
            json.dumps(error.report)
            refused += 1
        else:
            names = {file["name"] for file in request["files"]}
            assert {artifact["file"] for artifact in request["artifacts"]} <= names
            assert not any(name.startswith("/") or ".." in name.split("/") for name in names)
            read_ones += 1
    assert read_ones > 200
    assert refused > 3000
