"""Compare two artifacts as files: bytes, constants, operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.diff.types import FilesDiff, OperatorChange
from mobiledeploy.inspect.inspect_artifact import inspect_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.diff.open_artifact import OpenArtifact
    from mobiledeploy.inspect.summary import ArtifactSummary


def compare_files(a: OpenArtifact, b: OpenArtifact) -> tuple[FilesDiff, list[str]]:
    """Return how two files differ, and notes on what could not be compared.

    Raises:
        ArtifactError: a file is damaged.
    """
    first, other = a.manifest.artifact, b.manifest.artifact
    notes = [
        f"The artifact of {entry.given} is not beside its manifest: operators were not compared."
        for entry in (a, b)
        if entry.path is None
    ]
    operators = constants = None
    if a.path is not None and b.path is not None:
        summaries = inspect_artifact(a.path), inspect_artifact(b.path)
        constants = _constants(*summaries)
        if first.format == other.format:
            operators = tuple(_operator_changes(*summaries))
        else:
            notes.append(
                f"{first.format} and {other.format} name operators differently: they were not"
                " compared."
            )
    files = FilesDiff(
        same_bytes=first.sha256 == other.sha256,
        formats=(first.format, other.format),
        a_bytes=first.size_bytes,
        b_bytes=other.size_bytes,
        operators=operators,
        constants=constants,
        int8_macs_shares=(_int8_macs_share(a.manifest), _int8_macs_share(b.manifest)),
    )
    return files, notes


def _int8_macs_share(manifest: Manifest) -> float | None:
    return None if manifest.int8_coverage is None else manifest.int8_coverage.macs_share


def _operator_changes(a: ArtifactSummary, b: ArtifactSummary) -> Iterator[OperatorChange]:
    """Yield every operator whose number differs."""
    counts_a, counts_b = _counts(a), _counts(b)
    for key in dict.fromkeys((*counts_a, *counts_b)):
        count_a, count_b = counts_a.get(key, 0), counts_b.get(key, 0)
        if count_a != count_b:
            where, name, datatype = key
            yield OperatorChange(where=where, name=name, datatype=datatype, a=count_a, b=count_b)


def _counts(summary: ArtifactSummary) -> dict[tuple[str, str, str], int]:
    return {
        (group.where, operator.name, operator.datatype): operator.count
        for group in summary.groups
        for operator in group.operators
    }


def _constants(a: ArtifactSummary, b: ArtifactSummary) -> dict[str, tuple[int, int]]:
    """Return the bytes of constants in A and B by datatype."""
    kinds = dict.fromkeys((*a.weights_bytes, *b.weights_bytes))
    return {kind: (a.weights_bytes.get(kind, 0), b.weights_bytes.get(kind, 0)) for kind in kinds}
