"""Compare results of `bench` side by side: latency, size and accuracy.

Size and accuracy come from the artifacts and their manifests, if these are still where they were
measured.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, PlainSerializer

from mobiledeploy.artifact.manifest import manifest_path, parse_manifest
from mobiledeploy.errors import ArtifactError
from mobiledeploy.utils.files import sha256_of
from mobiledeploy.utils.json_model import JsonModel
from mobiledeploy.utils.json_numbers import encode_floats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.bench.json_report import Machine, TimedArtifact, TimesResult


_JSON_FLOAT = float | Literal["NaN", "-Infinity"] | None


class Row(JsonModel):
    """One artifact on one device.

    Attributes:
        artifact: File name.
        device: URI and processor.
        runtime: Name and version of the runtime.
        median_ms: Median latency.
        p90_ms: 90th percentile of the latency.
        ratio: Median latency as a multiple of the first artifact's in the same result.
        size_bytes: Size of the file; None if the measured file is not there any more.
        sqnr_db: SQNR against float, as measured by the export; None without a manifest.
        agreement: Top-1 agreement with float, on the same images; None without a manifest, and if
            the outputs are no classes.
    """

    artifact: str
    device: str
    runtime: str
    median_ms: float
    p90_ms: float
    ratio: float
    size_bytes: int | None
    sqnr_db: Annotated[float | None, PlainSerializer(encode_floats, return_type=_JSON_FLOAT)]
    agreement: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """Return the row as text, in the order of `HEADINGS`."""
        return (
            self.artifact,
            self.device,
            self.runtime,
            f"{self.median_ms:.2f}",
            f"{self.p90_ms:.2f}",
            f"{self.ratio:.3f}",
            "" if self.size_bytes is None else f"{self.size_bytes / 1e6:.2f}",
            "" if self.sqnr_db is None else f"{self.sqnr_db:.1f}",
            "" if self.agreement is None else f"{self.agreement:.3f}",
        )


class CompareDocument(JsonModel):
    """What `mobiledeploy compare --json` prints."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["mobiledeploy.compare"] = "mobiledeploy.compare"
    rows: tuple[Row, ...]


HEADINGS = (
    "artifact",
    "device",
    "runtime",
    "median ms",
    "p90 ms",
    "ratio to first",
    "MB",
    "SQNR dB",
    "agreement",
)


def rows_of(results: Sequence[TimesResult]) -> tuple[Row, ...]:
    """Return one row per artifact and device, in the order of the results."""
    return tuple(_row(entry, result.host) for result in results for entry in result.measurements)


def _row(entry: TimedArtifact, host: Machine) -> Row:
    path = Path(entry.artifact)
    accuracy = _accuracy(path, entry.artifact_sha256)
    return Row(
        artifact=path.name,
        device=f"{host.uri}, {host.model or host.architecture}",
        runtime=entry.runtime,
        median_ms=entry.median_ms,
        p90_ms=entry.p90_ms,
        ratio=entry.ratio_to_first.median,
        size_bytes=_size(path, entry.artifact_sha256),
        sqnr_db=accuracy.get("sqnr_db"),
        agreement=accuracy.get("agreement"),
    )


def _size(path: Path, sha256: str) -> int | None:
    """Return the size of the measured file; None if it is not there any more.

    The path is a document's word: it may be a device that never ends.
    """
    try:
        return path.stat().st_size if path.is_file() and sha256_of(path) == sha256 else None
    except OSError:
        return None


def _accuracy(path: Path, sha256: str) -> Mapping[str, float]:
    """Return the accuracy in the artifact's manifest; empty if it belongs to another file."""
    try:
        manifest = parse_manifest(manifest_path(path))
    except ArtifactError:
        return {}
    if manifest.artifact.sha256 != sha256 or manifest.parity is None:
        return {}
    metrics = manifest.parity.against_float(path.name)
    names = {"sqnr_db": "sqnr_db", "top1_agreement": "agreement"}
    return {names[name]: value for name, value in metrics.items() if name in names}


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown."""
    lines = [HEADINGS, ("---",) * len(HEADINGS), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
