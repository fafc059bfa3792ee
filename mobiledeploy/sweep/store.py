"""Results of sweeps in one SQLite file, which a crash or Ctrl-C cannot damage.

Each result is one transaction. A point that is done is found by its identity and never made again.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from mobiledeploy.errors import DataError, RuntimeFailedError
from mobiledeploy.sweep.points import Point

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

State = Literal["exported", "done", "failed", "interrupted", "over budget"]
_SCHEMA = 1
_TABLE = """
CREATE TABLE IF NOT EXISTS results (
    identity TEXT PRIMARY KEY,
    point TEXT NOT NULL,
    state TEXT NOT NULL,
    error TEXT NOT NULL,
    artifacts TEXT NOT NULL
)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredArtifact:
    """One artifact of a point.

    Attributes:
        path: The file.
        sha256: Its sha256.
        size_bytes: Its size.
        macs: Multiply-accumulates per image; None if they were not counted.
        sqnr_db: SQNR against float; None if it was not checked.
        agreement: Share of images with the same class as float; None if it was not checked.
        top1: Top-1 accuracy; None without labelled images.
        latency_ms: Median latency by device.
        instructions: Median instructions of an inference by device, where they were counted.
        machines: The processor that it was measured on, by device.
    """

    path: str
    sha256: str
    size_bytes: int
    macs: int | None = None
    sqnr_db: float | None = None
    agreement: float | None = None
    top1: float | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)
    instructions: dict[str, float] = field(default_factory=dict)
    machines: dict[str, str] = field(default_factory=dict)

    @property
    def measured_on(self) -> set[str]:
        """Return the devices where its latency or its instructions are known."""
        return {*self.latency_ms, *self.instructions}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What is known about one point.

    Attributes:
        point: The point.
        state: "exported" until it is measured on all devices, then "done"; "failed"; "interrupted"
            if it was stopped from outside or the disk was full, and is made again by the next run;
            "over budget" if it was not measured any further.
        error: Why it failed, or which budget it missed; empty if it is done.
        artifacts: Its artifacts.
    """

    point: Point
    state: State
    error: str = ""
    artifacts: tuple[MeasuredArtifact, ...] = ()


class Store:
    """The results in one file. Use it as a context manager.

    Args:
        path: The SQLite file; it is created if it does not exist.

    Raises:
        DataError: the file is no such database.
        RuntimeFailedError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = sqlite3.connect(path)
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            if version not in (0, _SCHEMA):
                raise DataError(
                    f"{path} was written by another version of mobiledeploy.",
                    remedy="Pass another --out.",
                )
            self._connection.execute(_TABLE)
            self._connection.execute(f"PRAGMA user_version = {_SCHEMA}")
        except sqlite3.DatabaseError as error:
            raise _explained(path, error) from error

    def get(self, identity: str) -> Result | None:
        """Return the result of a point; None if there is none.

        Raises:
            DataError: the file is damaged.
        """
        try:
            row = self._connection.execute(
                "SELECT point, state, error, artifacts FROM results WHERE identity = ?", (identity,)
            ).fetchone()
            return None if row is None else _result(*row)
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            raise _explained(self._path, error) from error

    def put(self, identity: str, result: Result) -> None:
        """Keep the result of a point; it replaces an earlier one.

        Raises:
            RuntimeFailedError: the file cannot be written.
        """
        row = (
            identity,
            json.dumps(asdict(result.point)),
            result.state,
            result.error,
            json.dumps([asdict(artifact) for artifact in result.artifacts]),
        )
        try:
            with self._connection:
                self._connection.execute("REPLACE INTO results VALUES (?, ?, ?, ?, ?)", row)
        except sqlite3.DatabaseError as error:
            raise _explained(self._path, error) from error

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self._connection.close()


def _result(point: str, state: State, error: str, artifacts: str) -> Result:
    measured: list[dict[str, Any]] = json.loads(artifacts)
    return Result(
        point=Point(**json.loads(point)),
        state=state,
        error=error,
        artifacts=tuple(MeasuredArtifact(**each) for each in measured),
    )


def _explained(path: Path, error: Exception) -> DataError | RuntimeFailedError:
    if isinstance(error, sqlite3.OperationalError):
        return RuntimeFailedError(f"Could not use {path}: {error}.")
    return DataError(
        f"{path} is damaged, or is no result of a sweep: {error}.", remedy="Pass another --out."
    )
