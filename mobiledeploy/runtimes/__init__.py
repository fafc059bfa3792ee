"""One `Runner` per runtime: PyTorch, ONNX Runtime, ExecuTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.runtimes.runner import Runner

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Runner", "open_runner"]


def open_runner(path: Path, *, threads: int = 1, optimize: bool = True) -> Runner:
    """Load an artifact into the runtime that its suffix asks for.

    Args:
        path: A `.onnx` or a `.pte` file.
        threads: Threads that compute one inference.
        optimize: False runs an ONNX graph as it is written. A `.pte` was optimized when it was
            exported: there it must be True.

    Raises:
        ArtifactError: no such file, an unknown suffix, or the runtime does not accept the file.
        UsageError: fewer than one thread, or `optimize=False` for a `.pte`.
    """
    if threads < 1:
        raise UsageError(f"{threads} threads cannot run anything; expected at least 1.")
    if not path.is_file():
        raise ArtifactError(
            f"There is no file {path}.",
            remedy="Check the path, or make the artifact with `mobiledeploy export`.",
        )
    # Only the runtime that is asked for is imported: ONNX Runtime needs no torch.
    if path.suffix == ".onnx":
        from mobiledeploy.runtimes.onnxruntime import OnnxRuntimeRunner  # noqa: PLC0415

        return OnnxRuntimeRunner(path, threads=threads, optimize=optimize)
    if path.suffix == ".pte":
        if not optimize:
            raise UsageError(f"{path}: a .pte has no optimizations that could be switched off.")
        from mobiledeploy.runtimes.executorch import ExecuTorchRunner  # noqa: PLC0415

        return ExecuTorchRunner(path, threads=threads)
    raise ArtifactError(
        f"{path} ends in {path.suffix or 'no suffix'!r}; expected .onnx or .pte.",
        remedy="Rename the file to what it is.",
    )
