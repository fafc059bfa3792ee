"""Two artifacts as files: bytes, constants, operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.diff.types import FilesDiff, OperatorChange
from mobiledeploy.inspect.inspect_artifact import inspect_artifact

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobiledeploy.diff.open_artifact import OpenArtifact
    from mobiledeploy.inspect.summary import ArtifactSummary


def compare_files(a: OpenArtifact, b: OpenArtifact) -> tuple[FilesDiff, list[str]]:
    """Compare two files; return what differs, and notes on what could not be compared.

    Raises:
        ArtifactError: a file is damaged.
    """
    described = [side.manifest.document["artifact"] for side in (a, b)]
    formats = described[0]["format"], described[1]["format"]
    notes = [
        f"The artifact of {side.given} is not beside its manifest: no operators were compared."
        for side in (a, b)
        if side.artifact is None
    ]
    summaries = [inspect_artifact(s.artifact) for s in (a, b) if s.artifact is not None]
    operators = constants = None
    if len(summaries) == 2:
        constants = _constants(*summaries)
        if formats[0] == formats[1]:
            operators = tuple(_operators(*summaries))
        else:
            names = " and ".join(formats)
            notes.append(f"{names} have operators of different names: they were not compared.")
    files = FilesDiff(
        same_bytes=described[0]["sha256"] == described[1]["sha256"],
        formats=formats,
        a_bytes=described[0]["size_bytes"],
        b_bytes=described[1]["size_bytes"],
        operators=operators,
        constants=constants,
        int8_macs_shares=(_int8_macs_share(a), _int8_macs_share(b)),
    )
    return files, notes


def _int8_macs_share(side: OpenArtifact) -> float | None:
    coverage = side.manifest.document.get("int8_coverage")
    return coverage.get("macs_share") if isinstance(coverage, dict) else None


def _operators(a: ArtifactSummary, b: ArtifactSummary) -> Iterator[OperatorChange]:
    """Yield every operator that occurs in one file more often than in the other."""
    mine, other = _counts(a), _counts(b)
    for key in dict.fromkeys((*mine, *other)):
        counts = (mine.get(key, 0), other.get(key, 0))
        if counts[0] != counts[1]:
            where, name, datatype = key
            yield OperatorChange(
                where=where, name=name, datatype=datatype, a=counts[0], b=counts[1]
            )


def _counts(summary: ArtifactSummary) -> dict[tuple[str, str, str], int]:
    return {
        (group.where, operator.name, operator.datatype): operator.count
        for group in summary.groups
        for operator in group.operators
    }


def _constants(a: ArtifactSummary, b: ArtifactSummary) -> dict[str, tuple[int, int]]:
    kinds = dict.fromkeys((*a.weights_bytes, *b.weights_bytes))
    return {kind: (a.weights_bytes.get(kind, 0), b.weights_bytes.get(kind, 0)) for kind in kinds}
