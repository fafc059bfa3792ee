"""Why are two artifacts not the same?

In: two artifacts, or their manifests; images, if their outputs are to be compared. Out: a
`Difference`: what went in, what came out, and what could not be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.diff.encodings import compare_encodings
from mobiledeploy.diff.files import compare_files
from mobiledeploy.diff.inputs import compare_inputs
from mobiledeploy.diff.open_artifact import open_artifact
from mobiledeploy.diff.outputs import compare_outputs
from mobiledeploy.diff.types import Difference, FloatComparison
from mobiledeploy.utils.json_numbers import decode_float
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.diff.outputs import FloatModule

__all__ = ["compare_artifacts"]


def compare_artifacts(
    a: Path,
    b: Path,
    data: Path | None = None,
    samples: int | None = None,
    *,
    float_module: FloatModule | None = None,
) -> Difference:
    """Compare two artifacts, each given as the file or as its manifest.

    Args:
        a: The reference.
        b: The other.
        data: Images to run both on: a folder, or an `.npz`; None runs nothing.
        samples: How many of them; None takes all.
        float_module: Builds the float network that a manifest describes; needed with `data`.

    Raises:
        ArtifactError: an artifact or manifest is missing or damaged, or the two do not belong
            together.
        DataError: there are no images.
    """
    with step("Reading manifests"):
        sides = open_artifact(a), open_artifact(b)
        first, other = (side.manifest for side in sides)
    with step("Reading artifacts"):
        files, notes = compare_files(*sides)
    outputs = None
    if data is not None:
        assert float_module is not None, "outputs are compared with the float network"
        outputs, more = compare_outputs(*sides, data, samples, float_module)
        notes += more
    return Difference(
        a=str(a),
        b=str(b),
        parts=compare_inputs(first, other),
        encodings=compare_encodings(first, other),
        files=files,
        a_recorded=_recorded(first),
        b_recorded=_recorded(other),
        outputs=outputs,
        notes=tuple(dict.fromkeys(notes)),
    )


def _recorded(manifest: Manifest) -> FloatComparison | None:
    """Return what the export measured of its artifact; None where it tells of no measurement."""
    try:
        report = manifest.document["parity"]
        (metrics,) = (
            held["metrics"]
            for rung in report["rungs"]
            for held in rung["comparisons"]
            if rung["artifact"] == manifest.artifact.name and held["reference"] == "float"
        )
        return FloatComparison(
            sqnr_db=decode_float(metrics["sqnr_db"]),
            agreement=float(metrics["top1_agreement"]),
            images=int(report["data"]["count"]),
            source=str(report["data"]["source"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
