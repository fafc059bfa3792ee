"""Try an artifact of unknown origin in a process of its own, before this process loads it.

Runtimes read artifacts in native code: a damaged or hostile file can crash them. Input: an
artifact. Invariant: an artifact that passes was loaded and run once by this version of its runtime
on this machine, or was exported here. The cache remembers which, by sha256.
"""

from __future__ import annotations

import contextlib
from importlib.metadata import version
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.errors import ArtifactError, RuntimeFailedError
from mobiledeploy.network import INPUT_NAME
from mobiledeploy.runtimes.open import check_artifact, open_runner
from mobiledeploy.utils.files import cache_folder, sha256_of
from mobiledeploy.utils.isolated import call_isolated
from mobiledeploy.utils.memory import require_memory
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from pathlib import Path

_RUNTIMES = {Format.PTE: "executorch", Format.ONNX: "onnxruntime", Format.TFLITE: "ai-edge-litert"}


def require_runnable(path: Path) -> None:
    """Raise unless an artifact can be loaded and run; try it, unless it is known.

    Raises:
        ArtifactError: The file is missing or damaged, or its runtime refuses it, crashes, or takes
            too long or too much memory.
    """
    check_artifact(path)
    record = _record(path)
    if record is not None and record.is_file():
        return
    with step(f"Trying {path.name} in a process of its own"):
        call_isolated(run_once, path)
    remember_tried(path)


def remember_tried(path: Path) -> None:
    """Remember that an artifact was tried or exported here, if the cache can be written."""
    record = _record(path)
    if record is not None:
        with contextlib.suppress(OSError):
            record.parent.mkdir(parents=True, exist_ok=True)
            record.touch()


def run_once(path: Path) -> None:
    """Load an artifact in this process and run it once on zeros.

    Raises:
        ArtifactError: Its runtime refuses it, or it does not run on an input of its own shape.
    """
    with open_runner(path) as runner:
        if runner.input_shape is None:  # the size is the caller's
            return
        shape = (runner.batch_size or 1, *runner.input_shape)
        try:
            require_memory(4 * int(np.prod(shape, dtype=object)), f"The inputs of {path.name}")
            runner.run({INPUT_NAME: np.zeros(shape, runner.input_type)})
        except RuntimeFailedError as error:
            raise ArtifactError(error.message, remedy=error.remedy) from error


def _record(path: Path) -> Path | None:
    """Return the file that stands for a tried artifact; None if its weights lie in another one."""
    if path.with_name(path.name + ".data").exists():
        return None
    runtime = _RUNTIMES[Format.of(path)]
    name = f"{sha256_of(path)}-{runtime}-{version(runtime)}"
    return cache_folder() / "tried" / name
