"""Read artifacts as the commands do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fuzz.isolate import HARD_LIMIT_BYTES, ContainedError, run_isolated
from mobiledeploy.artifact.artifact import Format, damage_explained, load
from mobiledeploy.errors import ArtifactError
from mobiledeploy.runtimes.open import check_artifact
from mobiledeploy.runtimes.trial import run_once

if TYPE_CHECKING:
    from pathlib import Path


_LIMIT_S = 20.0


def read_artifact(path: Path) -> None:
    """Check an artifact; then run and inspect it in a process of its own.

    The commands start a new Python for that (`utils.isolated`). Here it is a fork, which takes
    milliseconds, and its limit of time is shorter. A crash of the runtime ends that process only.

    Raises:
        ArtifactError: It was refused.
        ContainedError: Its runtime crashed, or took too long.
        RuntimeError: It was neither accepted nor refused.
    """
    check_artifact(path)
    run = partial(_run_and_inspect, path)
    outcome = run_isolated(run, limit_s=_LIMIT_S, limit_bytes=HARD_LIMIT_BYTES)
    if outcome.ending in ("crash", "hang"):
        raise ContainedError(outcome.detail)
    if outcome.ending in ("refused", "memory"):
        raise ArtifactError(outcome.detail)
    if outcome.is_finding:
        raise RuntimeError(f"{outcome.ending}: {outcome.detail}")


def _run_and_inspect(path: Path) -> None:
    run_once(path)
    with damage_explained(path):
        load(Format.of(path).inspector)(path)
