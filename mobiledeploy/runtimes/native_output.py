"""Capture what C++ libraries write to stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from typing import TYPE_CHECKING

from mobiledeploy.utils import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator


class NativeOutput:
    """What was written to stderr inside `captured_stderr`; set when the context ends."""

    def __init__(self) -> None:
        self.text = ""

    @property
    def last_line(self) -> str:
        """Return the last line that is not empty: libraries print the cause last."""
        lines = [line.strip() for line in self.text.splitlines() if line.strip()]
        return lines[-1] if lines else ""


@contextlib.contextmanager
def captured_stderr() -> Iterator[NativeOutput]:
    """Redirect file descriptor 2 and `sys.stderr` to a temporary file inside the context.

    ONNX Runtime and XNNPACK write to the descriptor, ExecuTorch writes to `sys.stderr` through
    pybind11. The descriptor belongs to the whole process, so other threads are silenced as well:
    keep the context short. With ``--verbose`` nothing is redirected.
    """
    output = NativeOutput()
    if quiet.is_verbose():
        yield output
        return
    with contextlib.ExitStack() as stack:
        written = stack.enter_context(tempfile.TemporaryFile())
        sys.stderr.flush()
        stack.enter_context(_descriptor_redirected(2, written.fileno()))
        python_written = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        try:
            yield output
        finally:
            written.seek(0)
            native = written.read().decode("utf-8", errors="replace")
            output.text = native + python_written.getvalue()


@contextlib.contextmanager
def _descriptor_redirected(descriptor: int, target: int) -> Iterator[None]:
    """Point `descriptor` at `target` inside the context."""
    before = os.dup(descriptor)
    try:
        os.dup2(target, descriptor)
        yield
    finally:
        os.dup2(before, descriptor)
        os.close(before)
