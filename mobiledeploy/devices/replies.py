"""Check what a device sends, before anything else reads it: a device may be broken or hostile.

Input: a message of a session, and the request that it answers. Invariant: a message that passes has
the types of `request.Message`, and a result has what its task returns.
"""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from mobiledeploy.devices.request import Message, from_npy
from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.json_model import explain_invalid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.devices.request import Request, Result, Task

_FIELDS: dict[Task, tuple[str, ...]] = {
    "bench": ("fresh", "times_ms", "conditions", "outputs"),
    "instructions": ("runtime", "instructions", "outputs"),
    "profile": ("runtime", "whole_us", "operators"),
    "outputs": ("inputs", "outputs"),
    "load": ("runtimes",),
}
# what numpy raises for damaged .npy data; it parses their header as Python's literals
_NOT_ARRAYS = (ValueError, TypeError, EOFError, SyntaxError, MemoryError, OverflowError)


def malformed(uri: str, problem: object) -> RuntimeFailedError:
    """Return the error for a device that does not keep to the protocol."""
    return RuntimeFailedError(
        f"{uri} sent a message that mobiledeploy does not understand: {problem}.",
        remedy="Run `mobiledeploy device setup` again, so that both sides have the same version.",
    )


def check_message(uri: str, message: Message, request: Request | None) -> None:
    """Raise unless a message has the right types, and a result answers its request.

    Raises:
        RuntimeFailedError: It does not.
    """
    try:
        _messages().validate_python(message, strict=True)
    except ValidationError as error:
        raise malformed(uri, explain_invalid(error)) from error
    if request is not None and "result" in message:
        problem = _problem(message["result"], request)
        if problem:
            raise malformed(uri, problem)


@cache
def _messages() -> TypeAdapter[Message]:
    return TypeAdapter(Message)


def _problem(result: Result, request: Request) -> str:
    """Return why a result does not answer its request; "" if it does."""
    missing = [name for name in _FIELDS[request.task] if name not in result]
    if missing:
        return f"its result has no `{missing[0]}`"
    problem = _all_arrays_problem(result, request)
    if problem:
        return problem
    times = result.get("times_ms", ())
    if "times_ms" in result and len(times) != len(request.artifacts):
        return f"`times_ms` has times of {len(times)} of {len(request.artifacts)} artifacts"
    if len({len(rounds) for rounds in times}) > 1:
        return f"`times_ms` has {[len(rounds) for rounds in times]} times"
    series = [
        *times,
        *(result[name] for name in ("instructions", "whole_us") if name in result),
        *(operator.get("times_us", []) for operator in result.get("operators", ())),
    ]
    if any(not numbers or min(numbers) < 0 for numbers in series):
        return "it has no times or counts, or negative ones"
    return _operators_problem(result, request)


def _all_arrays_problem(result: Result, request: Request) -> str:
    if request.task == "outputs" and None in result["outputs"]:
        return "`outputs` has no array of an artifact"
    inputs = [None if each is None else [each] for each in result.get("inputs", [])]
    for name, arrays in (("inputs", inputs), ("outputs", result.get("outputs", []))):
        problem = _arrays_problem(arrays, request) if name in result else ""
        if problem:
            return f"`{name}` {problem}"
    return ""


def _arrays_problem(arrays: Sequence[Sequence[str] | None], request: Request) -> str:
    """Return what is wrong with the arrays of each artifact; "" if nothing is."""
    if len(arrays) != len(request.artifacts):
        return f"has arrays of {len(arrays)} artifacts for {len(request.artifacts)}"
    if [] in arrays:
        return "has no array of an artifact"
    for encoded in (each for of_one in arrays for each in of_one or ()):
        try:
            array = from_npy(base64.b64decode(encoded, validate=True))
        except _NOT_ARRAYS as error:
            return f"is no array ({str(error).splitlines()[0] if str(error) else repr(error)})"
        if array.dtype.kind not in "fiub" or array.ndim == 0:
            return f"is {array.dtype} {array.shape}; expected numbers"
    return ""


def _operators_problem(result: Result, request: Request) -> str:
    operators = result.get("operators", [])
    if request.operators and len(operators) != len(request.operators):
        return f"it has the times of {len(operators)} of {len(request.operators)} operators"
    named = all("name" in each and "kind" in each for each in operators)
    return "" if request.operators or named else "it has operators without names"
