"""Compare two artifacts: their inputs, encodings, files and outputs.

In: two artifacts or their manifests, and images if outputs are compared. Out: a `Difference`, which
also lists what could not be compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.diff.encodings import compare_encodings
from mobiledeploy.diff.files import compare_files
from mobiledeploy.diff.inputs import compare_inputs
from mobiledeploy.diff.open_artifact import open_artifact
from mobiledeploy.diff.types import Difference, FloatComparison
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.diff.outputs import FloatModule


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
        b: The candidate.
        data: Images to run both on, a folder or an `.npz`; None compares no outputs.
        samples: Number of images; None for all.
        float_module: Builds the float network of a manifest; required with `data`.

    Raises:
        ArtifactError: an artifact or manifest is missing or damaged, or the two do not belong
            together.
        DataError: there are no images.
    """
    with step("Reading manifests"):
        pair = open_artifact(a), open_artifact(b)
        manifests = pair[0].manifest, pair[1].manifest
    with step("Reading artifacts"):
        files, notes = compare_files(*pair)
    outputs = None
    if data is not None:
        # torch is loaded only where outputs are compared
        from mobiledeploy.diff.outputs import compare_outputs  # noqa: PLC0415

        assert float_module is not None, "outputs are compared with the float network"
        outputs, more = compare_outputs(*pair, data, samples, float_module)
        notes += more
    return Difference(
        a=str(a),
        b=str(b),
        inputs=compare_inputs(*manifests),
        encodings=compare_encodings(*manifests),
        files=files,
        a_at_export=_at_export(manifests[0]),
        b_at_export=_at_export(manifests[1]),
        outputs=outputs,
        notes=tuple(dict.fromkeys(notes)),
    )


def _at_export(manifest: Manifest) -> FloatComparison | None:
    """Return how the export measured its artifact against float; None if it did not."""
    parity = manifest.parity
    if parity is None or parity.data is None:
        return None
    metrics = parity.against_float(manifest.artifact.file)
    if "sqnr_db" not in metrics:
        return None
    return FloatComparison(
        sqnr_db=metrics["sqnr_db"],
        top1_agreement=metrics.get("top1_agreement"),
        images=parity.data.count,
        source=parity.data.source,
    )
