"""One `Runner` per runtime: PyTorch, ONNX Runtime, ExecuTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.artifact.pte_file import check_pte
from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.runtimes.runner import Runner
from mobiledeploy.utils.files import require_artifact, require_utf8

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.runtimes.executorch import ExecuTorchRunner
    from mobiledeploy.runtimes.onnxruntime import OnnxRuntimeRunner

__all__ = ["Runner", "check_artifact", "open_runner", "runner_type"]


def open_runner(path: Path, *, threads: int = 1, optimize: bool = True) -> Runner:
    """Load an artifact into the runtime that its suffix asks for.

    Args:
        path: A `.onnx` or a `.pte` file.
        threads: Threads that compute one inference.
        optimize: False runs an ONNX graph as it is written. A `.pte` was optimized when it was
            exported: there it must be True.

    Raises:
        ArtifactError: no such file, an unknown suffix, or the runtime does not accept the file.
        UsageError: fewer than one thread, `optimize=False` for a `.pte`, or a path that is not
            UTF-8.
    """
    if threads < 1:
        raise UsageError(f"{threads} threads cannot run anything; expected at least 1.")
    require_artifact(path)
    return runner_type(path)(path, threads=threads, optimize=optimize)


def check_artifact(path: Path) -> None:
    """See whether a file can be given to its runtime, without loading the runtime.

    A damaged `.pte` may abort the process that loads it (see `pte_file`).

    Raises:
        ArtifactError: no such file, an unknown suffix, or a `.pte` that is none.
        UsageError: the path is not UTF-8.
    """
    if path.suffix not in (".onnx", ".pte"):
        raise _unknown(path)
    require_artifact(path)
    require_utf8(path)
    if path.suffix == ".pte":
        check_pte(path)


def runner_type(path: Path) -> type[OnnxRuntimeRunner | ExecuTorchRunner]:
    """Import the runtime that a file's suffix asks for, and only that: ORT needs no torch.

    Raises:
        ArtifactError: an unknown suffix.
    """
    if path.suffix == ".onnx":
        from mobiledeploy.runtimes.onnxruntime import OnnxRuntimeRunner  # noqa: PLC0415

        return OnnxRuntimeRunner
    if path.suffix == ".pte":
        from mobiledeploy.runtimes.executorch import ExecuTorchRunner  # noqa: PLC0415

        return ExecuTorchRunner
    raise _unknown(path)


def _unknown(path: Path) -> ArtifactError:
    return ArtifactError(
        f"{path} ends in {path.suffix or 'no suffix'!r}; expected .onnx or .pte.",
        remedy="Name the artifact itself; what it was exported as is its suffix.",
    )
