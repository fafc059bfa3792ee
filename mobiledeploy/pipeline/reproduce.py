"""Build an artifact again from its manifest, and see whether the bytes are the same.

In: a manifest; where checkpoint and calibration images are now if they have moved. Out: a
`Reproduction`. Invariant: only the weights and images of the manifest, by sha256, are built from;
where there are others, that is the answer, and nothing is built.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.artifact.manifest import write_manifest
from mobiledeploy.diff.compare import compare_artifacts
from mobiledeploy.diff.open_artifact import open_artifact
from mobiledeploy.diff.text import encodings_in_words
from mobiledeploy.diff.types import Reproduction
from mobiledeploy.errors import OtherInputsError, UsageError
from mobiledeploy.export.write import export_executorch, export_onnx
from mobiledeploy.pipeline.build import take_through_stages
from mobiledeploy.pipeline.rebuild import find_calibration, find_checkpoint, rebuild_float
from mobiledeploy.utils.files import moved_when_done, require_home_for_artifacts
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobiledeploy.artifact.artifact import Artifact
    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.diff.open_artifact import OpenArtifact
    from mobiledeploy.diff.types import Difference
    from mobiledeploy.network import CalibrationSet, FloatModel

_EXPORTERS = {"onnx": export_onnx, "pte": export_executorch}


def reproduce(
    given: Path,
    *,
    weights: Path | None = None,
    calib_data: Path | None = None,
    out: Path | None = None,
) -> Reproduction:
    """Build what a manifest describes, and compare the bytes.

    Args:
        given: A manifest, or an artifact that has one beside it.
        weights: The checkpoint, where it is no longer where it was.
        calib_data: The calibration images, likewise.
        out: A folder that keeps what was built; None keeps nothing.

    Raises:
        UsageError: what was built would overwrite the artifact, or an option says nothing here.
        ArtifactError: the manifest is missing or damaged, or the artifact beside it is another.
        WeightsError: the checkpoint cannot be found or read.
        DataError: the images cannot be found or read.
        RuntimeFailedError: an exporter failed, or `out` cannot be written.
    """
    with step("Reading the manifest"):
        side = open_artifact(given)
    manifest = side.manifest
    if out is not None:
        _require_other_folder(manifest, out)
    model, calibration, reasons = _inputs(manifest, weights, calib_data)
    if model is None or reasons:
        return _told(side, reasons=reasons)
    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rebuilt = _build(manifest, model, calibration, folder / manifest.artifact.name)
        if rebuilt.sha256 == manifest.document["artifact"]["sha256"]:
            return _told(side, found=rebuilt.sha256)
        difference = replace(compare_artifacts(given, rebuilt.path), b="what was built")
    reasons = list(_reasons(difference))
    return _told(side, found=rebuilt.sha256, reasons=reasons, difference=difference)


def _told(
    side: OpenArtifact,
    *,
    found: str = "",
    reasons: Sequence[str] = (),
    difference: Difference | None = None,
) -> Reproduction:
    return Reproduction(
        manifest=str(side.manifest.path),
        expected_sha256=side.manifest.document["artifact"]["sha256"],
        found_sha256=found,
        reasons=tuple(reasons),
        difference=difference,
    )


def _inputs(
    manifest: Manifest, weights: Path | None, calib_data: Path | None
) -> tuple[FloatModel | None, CalibrationSet | None, list[str]]:
    """Return the float network and the images, and what is not the manifest's among them."""
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
    deployed = take_through_stages(model, calibration, manifest.recipe).deployed
    export = _EXPORTERS[manifest.document["artifact"]["format"]]
    with moved_when_done(path.parent) as folder:
        artifact = export(deployed, folder / path.name)
        write_manifest(artifact, deployed, None, home=path.parent)
    return replace(artifact, path=path)


def _reasons(difference: Difference) -> Iterator[str]:
    """Yield why the bytes differ although the same went in."""
    tools = next(part for part in difference.parts if part.name == "tools")
    for change in tools.changes:
        yield f"{change.field} {change.a or 'absent'} made the artifact, {change.b} is here."
    encodings = difference.encodings
    if encodings is not None:
        yield from encodings_in_words(encodings)
        if encodings.same_network:
            yield "The int8 network is the same to the last weight: it was written in other bytes."
    if not tools.changes:
        yield (
            "All versions are those that made it: it is float arithmetic of another machine, or"
            " the manifest was edited."
        )


def _require_other_folder(manifest: Manifest, out: Path) -> None:
    """Raise unless files can be written to `out`, and the artifact itself does not lie there."""
    if out.resolve() == manifest.folder.resolve():
        raise UsageError(
            f"{out} holds the artifact that is to be reproduced; it would be overwritten.",
            remedy="Choose another folder with --out.",
        )
    require_home_for_artifacts(out)
