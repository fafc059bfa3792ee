"""Why are two artifacts not the same?

In: two artifacts, or their manifests; images, if their outputs are to be compared. Out: a
`Difference`: what went in, what came out, and what could not be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.difference.encodings import compare_encodings
from mobiledeploy.difference.files import compare_files
from mobiledeploy.difference.outputs import compare_outputs
from mobiledeploy.difference.parts import parts_of
from mobiledeploy.difference.sides import open_side
from mobiledeploy.finite import figure
from mobiledeploy.progress import step
from mobiledeploy.types import Difference, Loss

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.export.manifest import Manifest

__all__ = ["compare_artifacts"]


def compare_artifacts(
    a: Path, b: Path, data: Path | None = None, samples: int | None = None
) -> Difference:
    """Compare two artifacts, each given as the file or as its manifest.

    Args:
        a: The reference.
        b: The other.
        data: Images to run both on: a folder, or an `.npz`; None runs nothing.
        samples: How many of them; None takes all.

    Raises:
        ArtifactError: an artifact or manifest is missing or damaged, or the two do not belong
            together.
        DataError: there are no images.
    """
    with step("Reading manifests"):
        sides = open_side(a), open_side(b)
        first, other = (side.manifest for side in sides)
    with step("Reading artifacts"):
        files, notes = compare_files(*sides)
    outputs = None
    if data is not None:
        outputs, more = compare_outputs(*sides, data, samples)
        notes += more
    return Difference(
        a=str(a),
        b=str(b),
        parts=parts_of(first, other),
        encodings=compare_encodings(first, other),
        files=files,
        a_recorded=_recorded(first),
        b_recorded=_recorded(other),
        outputs=outputs,
        notes=tuple(dict.fromkeys(notes)),
    )


def _recorded(manifest: Manifest) -> Loss | None:
    """Return what the export measured of its artifact; None where it tells of no measurement."""
    try:
        report = manifest.document["parity"]
        (metrics,) = (
            held["metrics"]
            for rung in report["rungs"]
            for held in rung["comparisons"]
            if rung["artifact"] == manifest.artifact.name and held["reference"] == "float"
        )
        return Loss(
            sqnr_db=figure(metrics["sqnr_db"]),
            agreement=float(metrics["top1_agreement"]),
            images=int(report["data"]["count"]),
            source=str(report["data"]["source"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
