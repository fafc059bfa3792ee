"""Open an artifact in the runtime for its format."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.artifact.artifact import Format, load
from mobiledeploy.artifact.manifest import require_undamaged
from mobiledeploy.errors import UsageError
from mobiledeploy.runtimes.runner import Runner
from mobiledeploy.utils.arguments import StrPath, as_path
from mobiledeploy.utils.files import require_artifact, require_utf8

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.runtimes.executorch import ExecuTorchRunner
    from mobiledeploy.runtimes.onnxruntime import OnnxRuntimeRunner

__all__ = ["Runner", "check_artifact", "open_runner", "runner_type"]


def open_runner(path: StrPath, *, threads: int = 1, optimize: bool = True) -> Runner:
    """Load an artifact into the runtime for its suffix.

    Args:
        path: A `.onnx` or a `.pte` file.
        threads: Threads that compute one inference.
        optimize: False runs an ONNX graph as it is written. It must be True for a `.pte`, which was
            optimized when it was exported.

    Raises:
        ArtifactError: The file does not exist, its suffix is unknown, or its runtime rejects it.
        UsageError: Fewer than one thread, `optimize=False` for a `.pte`, or a path that is not
            UTF-8.
    """
    if threads < 1:
        raise UsageError(f"threads is {threads}; expected at least 1.")
    file = as_path(path, "path")
    require_artifact(file)
    return runner_type(file)(file, threads=threads, optimize=optimize)


def check_artifact(path: Path) -> None:
    """Check, without loading the runtime, that a file can be passed to it.

    A damaged `.pte` may abort the process that loads it (see `pte_file`).

    Raises:
        ArtifactError: The file does not exist, its suffix is unknown, it is a damaged `.pte`, or
            the manifest beside it describes another file.
        UsageError: The path is not UTF-8.
    """
    require_artifact(path)
    format_ = Format.of(path)
    require_utf8(path)
    if format_.verifier:
        load(format_.verifier)(path)
    require_undamaged(path)


def runner_type(path: Path) -> type[OnnxRuntimeRunner | ExecuTorchRunner]:
    """Import the runtime for a file's suffix, and no other: ONNX Runtime does not need torch.

    Raises:
        ArtifactError: The suffix is unknown.
    """
    runner: type[OnnxRuntimeRunner | ExecuTorchRunner] = load(Format.of(path).runner)
    return runner
