"""Build an artifact again from its manifest and compare the bytes.

In: a manifest, and the new paths of checkpoint and calibration images if they have moved. Out: a
`Reproduction`. Invariant: only weights and images with the sha256 of the manifest are used. With
others nothing is built, and the result names them as the reason.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.artifact.manifest import write_manifest
from mobiledeploy.diff.compare import compare_artifacts
from mobiledeploy.diff.open_artifact import open_artifact
from mobiledeploy.diff.text import describe_encodings
from mobiledeploy.diff.types import Reproduction
from mobiledeploy.errors import OtherInputsError, UsageError
from mobiledeploy.export.write import export
from mobiledeploy.pipeline.rebuild import find_calibration, find_checkpoint, rebuild_float
from mobiledeploy.pipeline.stages import run_stages
from mobiledeploy.utils.files import (
    moved_when_done,
    removed_when_done,
    require_artifact_folder,
)
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobiledeploy.artifact.artifact import Artifact
    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.diff.types import Difference
    from mobiledeploy.stages import CalibrationSet, FloatModel


def reproduce(
    given: Path,
    *,
    weights: Path | None = None,
    calib_data: Path | None = None,
    out: Path | None = None,
) -> Reproduction:
    """Build the artifact of a manifest again and compare the bytes.

    Args:
        given: A manifest, or an artifact with its manifest beside it.
        weights: The checkpoint, if it has moved.
        calib_data: The calibration images, if they have moved.
        out: A folder to keep the new artifact in; None keeps nothing.

    Raises:
        UsageError: the new artifact would overwrite the old one, or an option does not apply.
        ArtifactError: the manifest is missing or damaged, or the artifact beside it is another one.
        WeightsError: the checkpoint cannot be found or read.
        DataError: the images cannot be found or read.
        RuntimeFailedError: an exporter failed, or `out` cannot be written.
    """
    with step("Reading the manifest"):
        manifest = open_artifact(given).manifest
    if out is not None:
        _require_other_folder(manifest, out)
    result = Reproduction(
        manifest=str(manifest.path), expected_sha256=manifest.artifact.sha256, found_sha256=None
    )
    model, calibration, reasons = _find_inputs(manifest, weights, calib_data)
    if model is None or reasons:
        return result.model_copy(update={"reasons": tuple(reasons)})
    with ExitStack() as stack:
        folder = out or stack.enter_context(removed_when_done("mobiledeploy-"))
        rebuilt = _build(manifest, model, calibration, folder / manifest.artifact_path.name)
        result = result.model_copy(update={"found_sha256": rebuilt.sha256})
        if result.same:
            return result
        difference = compare_artifacts(given, rebuilt.path).model_copy(
            update={"b": "the rebuilt artifact"}
        )
    return result.model_copy(
        update={"reasons": tuple(_reasons(difference)), "difference": difference}
    )


def _find_inputs(
    manifest: Manifest, weights: Path | None, calib_data: Path | None
) -> tuple[FloatModel | None, CalibrationSet | None, list[str]]:
    """Return the float network, the calibration images, and a sentence for each wrong input."""
    reasons: list[str] = []
    model: FloatModel | None = None
    calibration: CalibrationSet | None = None
    try:
        model = rebuild_float(manifest, find_checkpoint(manifest, weights))
    except OtherInputsError as error:
        reasons.append(error.message)
    try:
        with step("Loading the calibration images"):
            calibration = find_calibration(manifest, calib_data)
    except OtherInputsError as error:
        reasons.append(error.message)
    return model, calibration, reasons


def _build(
    manifest: Manifest, model: FloatModel, calibration: CalibrationSet | None, path: Path
) -> Artifact:
    """Write the artifact and its manifest."""
    deployed = run_stages(model, calibration, manifest.recipe).deployed
    with moved_when_done(path.parent) as folder:
        artifact = export(deployed, manifest.artifact.format, folder / path.name)
        write_manifest(artifact, deployed, None, home=path.parent)
    return replace(artifact, path=path)


def _reasons(difference: Difference) -> Iterator[str]:
    """Yield why the bytes differ although the inputs are the same."""
    tools = next(entry for entry in difference.inputs if entry.name == "tools")
    for change in tools.changes:
        yield f"{change.field} {change.a or 'absent'} made the artifact, {change.b} is installed."
    encodings = difference.encodings
    if encodings is not None:
        yield from describe_encodings(encodings)
        if encodings.same_network:
            yield "The int8 network is identical; the exporter wrote it in other bytes."
    if not tools.changes:
        yield (
            "All versions are the same: float arithmetic differs on this machine, or the manifest"
            " was edited."
        )


def _require_other_folder(manifest: Manifest, out: Path) -> None:
    """Raise unless `out` can be written and does not hold the artifact itself."""
    if out.resolve() == manifest.folder.resolve():
        raise UsageError(
            f"{out} holds the artifact that is to be reproduced; it would be overwritten.",
            remedy="Choose another folder with --out.",
        )
    require_artifact_folder(out)
