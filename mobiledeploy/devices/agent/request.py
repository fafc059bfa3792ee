"""Read and check the line of a request, as the native runner's `request.cpp` does.

`mobiledeploy.devices.request` describes the fields.
"""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING, Any

from mobiledeploy.devices.agent.errors import AgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.devices.request import RequestMessage

MAX_LINE_BYTES = 1 << 22  # a thousand artifacts with the longest paths
_MAX_INT = 2**31 - 1
_MAX_SIZE = 1 << 40  # of a file
_MAX_THREADS = 1024  # as the command line
_MAX_DIGITS = 20  # Python takes minutes for millions of them
_SHOWN = 60  # characters of a value in an error
_ONE_ARTIFACT = ("instructions", "profile")
_WITH_ROUNDS = ("bench", *_ONE_ARTIFACT)
_REMEDY = (
    "Run the command again. If it fails again, the connection is unreliable, or the two sides are "
    "of different versions of mobiledeploy."
)


def read_request(line: bytes, tasks: Sequence[str]) -> RequestMessage:
    """Return the request of a line.

    Args:
        line: JSON in UTF-8.
        tasks: The names of the tasks that there are.

    Raises:
        AgentError: It is too long or no JSON; a value is missing, of another type or out of range;
            or a path leads out of the session's folder.
    """
    if len(line) > MAX_LINE_BYTES:
        raise _unreadable(f"it is longer than {MAX_LINE_BYTES} bytes.")
    try:
        message: RequestMessage = json.loads(line.decode(), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise _unreadable(f"{error}.") from error
    _check(_Value(message), tasks)
    return message


def _check(message: _Value, tasks: Sequence[str]) -> None:
    task = message["task"].text()
    if task not in tasks:
        raise message["task"].wrong(f"one of {', '.join(tasks)}")
    files = {_check_file(file) for file in message["files"].elements()}
    artifacts = [_check_program(each, files) for each in message["artifacts"].elements()]
    for artifact in artifacts:
        if artifact["inputs"].value is not None:
            artifact["inputs"].one_of(files)
    takes_more = task not in _ONE_ARTIFACT
    if len(artifacts) != 1 and not (artifacts and takes_more):
        expected = "1 or more" if takes_more else "1"
        raise _unreadable(f"it has {len(artifacts)} artifacts; {task} takes {expected}.")
    message["threads"].integer(1, _MAX_THREADS)
    for core in message["affinity"].elements():
        core.integer(0, _MAX_INT)
    message["rounds"].integer(int(task in _WITH_ROUNDS), _MAX_INT)
    message["warmup"].integer(0, _MAX_INT)
    message["seed"].integer(-(2**63), 2**63 - 1)
    if message["duration_s"].value is not None:
        message["duration_s"].seconds()
    message["limit_s"].seconds()
    for operator in message["operators"].elements():
        _check_program(operator, files)
        _check_inputs(operator["inputs"])


def _check_file(file: _Value) -> str:
    """Check a file that is sent; return its name, a path inside the session's folder."""
    name = file["name"].text()
    if not _is_inner(name):
        raise file["name"].wrong("a path inside the folder of the session")
    file["size"].integer(0, _MAX_SIZE)
    file["sha256"].text()
    return name


def _is_inner(name: str) -> bool:
    """Return whether a name is that of a file inside a folder, and the system can have it."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return "\0" not in name and not any(part in {"", ".", ".."} for part in name.split("/"))


def _check_program(program: _Value, files: set[str]) -> _Value:
    program["file"].one_of(files)
    program["label"].text()
    return program


def _check_inputs(inputs: _Value) -> None:
    """Check the datatype and the shape of each input of an operator."""
    for given in inputs.elements():
        pair = given.elements()
        if len(pair) != 2:
            raise given.wrong("a datatype and a shape")
        pair[0].text()
        for size in pair[1].elements():
            size.integer(0, _MAX_INT)


class _Value:
    """A value of the request and its path, for errors."""

    def __init__(self, value: Any, path: str = "") -> None:
        self.value = value
        self._path = path

    def __getitem__(self, key: str) -> _Value:
        path = f"{self._path}.{key}" if self._path else key
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        if key not in self.value:
            raise _unreadable(f"{path} is missing.")
        return _Value(self.value[key], path)

    def elements(self) -> list[_Value]:
        """Return the elements of a list."""
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        return [_Value(each, f"{self._path}[{i}]") for i, each in enumerate(self.value)]

    def text(self) -> str:
        """Return a string."""
        if not isinstance(self.value, str):
            raise self.wrong("a string")
        return self.value

    def one_of(self, files: set[str]) -> None:
        """Check that this names a file."""
        if self.text() not in files:
            raise self.wrong("the name of a file of the request")

    def integer(self, least: int, most: int) -> None:
        """Check the type and the range."""
        is_integer = isinstance(self.value, int) and not isinstance(self.value, bool)
        if not (is_integer and least <= self.value <= most):
            raise self.wrong(f"an integer from {least} to {most}")

    def seconds(self) -> None:
        """Check for a finite number above 0."""
        is_number = isinstance(self.value, (int, float)) and not isinstance(self.value, bool)
        if not (is_number and 0 < self.value < math.inf):
            raise self.wrong("a number above 0")

    def wrong(self, expected: str) -> AgentError:
        """Return an error that names the value and what was expected."""
        return _unreadable(f"{self._path or 'it'} is {self._shown()}; expected {expected}.")

    def _shown(self) -> str:
        """Return the value as JSON, cut; lists and objects may be nested too deeply for that."""
        if isinstance(self.value, (list, dict)):
            return "a list" if isinstance(self.value, list) else "an object"
        text = json.dumps(self.value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _integer(digits: str) -> int:
    """Return an integer.

    Raises:
        ValueError: It has too many digits.
    """
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"An integer has {len(digits)} digits")
    return int(digits)


def _unreadable(reason: str) -> AgentError:
    return AgentError(
        "RuntimeFailedError", f"The device cannot read the request: {reason}", _REMEDY
    )
