"""Where the checkpoint and the calibration images of a manifest are today.

In: a `Manifest`, and where things are now if somebody says so. Out: the checkpoint's path, the
images. Invariant: what is returned has the sha256 that the manifest states; other weights or images
are never used in its place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.data import embedded_calibration, load_calibration
from mobiledeploy.errors import DataError, OtherInputsError, UsageError, WeightsError
from mobiledeploy.files import sha256_of
from mobiledeploy.types import EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mobiledeploy.export.manifest import Manifest
    from mobiledeploy.types import CalibrationSet


def find_checkpoint(manifest: Manifest, given: Path | None = None) -> Path | None:
    """Return the checkpoint file; None where the weights are named and no file was given.

    Args:
        manifest: Says where it was, and its sha256.
        given: Where it is now; nowhere else is looked.

    Raises:
        UsageError: a file is given for random weights, which have none.
        WeightsError: there is no file.
        OtherInputsError: there are only files of other contents.
    """
    described = manifest.document["weights"]
    if described["source"] == "random" and given is not None:
        raise UsageError(
            f"The weights are random ({described['origin']}): they come from no file.",
            remedy="Leave --weights out.",
        )
    if described["source"] != "file" and given is None:
        return None
    places = list(places_of(manifest, manifest.spec.weights, described, given))
    found = [path for path in places if path.is_file()]
    for path in found:
        if sha256_of(path) == described["sha256"]:
            return path
    where = " and ".join(str(path) for path in found or places)
    if not found:
        raise WeightsError(
            f"The checkpoint is no longer at {where}.", remedy="Say with --weights where it is."
        )
    raise OtherInputsError(
        f"The weights at {where} are not those of the artifact: the sha256 is"
        f" {sha256_of(found[0])[:12]}..., expected {described['sha256'][:12]}...",
        remedy="Say with --weights where the checkpoint is, or export the artifact again.",
    )


def find_calibration(manifest: Manifest, given: Path | None = None) -> CalibrationSet | None:
    """Load the images that the network was calibrated with; None where it is a float one.

    Args:
        manifest: Says where they were, how many, and the sha256 of their ordered list.
        given: Where they are now; nowhere else is looked.

    Raises:
        UsageError: images are given for a float network.
        DataError: there are none, too few, or one cannot be read.
        OtherInputsError: there are only other ones.
    """
    if manifest.recipe is None:
        if given is not None:
            raise UsageError(
                "The artifact is a float one: there was no calibration.",
                remedy="Leave --calib-data out.",
            )
        return None
    described = manifest.document["calibration"]
    places: list[Path | None] = [None]
    if described["source"] != EMBEDDED or given is not None:
        places = [*places_of(manifest, described["source"], described, given)]
    found = [path for path in places if path is None or path.exists()]
    if not found:
        raise DataError(
            f"The calibration images are no longer at {' and '.join(map(str, places))}, and the"
            " int8 network cannot be rebuilt without them.",
            remedy="Say with --calib-data where they are.",
        )
    others: list[str] = []
    unusable: list[str] = []
    for path in found:
        try:
            images = _load(manifest, path, described["count"])
        except DataError as error:
            unusable.append(error.message)
            continue
        if images.sha256 == described["sha256"]:
            return images
        others.append(_other(path, images.sha256))
    remedy = "Say with --calib-data where the images are, or export the artifact again."
    if not others:
        raise DataError(" ".join(unusable), remedy=remedy)
    raise OtherInputsError(
        "The calibration images are not those that the artifact was made with:"
        f" {' and '.join(others)}, expected {str(described['sha256'])[:12]}... for"
        f" {described['count']} images.",
        remedy=remedy,
    )


def _other(path: Path | None, sha256: str) -> str:
    where = "those that this package carries" if path is None else f"those of {path}"
    return f"{where} have the sha256 {sha256[:12]}..."


def places_of(
    manifest: Manifest, typed: str, described: Mapping[str, str], given: Path | None = None
) -> Iterator[Path]:
    """Yield where a file or folder may be: where it is said to be now, and then nowhere else.

    By default as it was typed, from the current folder; then as seen from the manifest, so that a
    project can be moved, or checked out elsewhere, as a whole.
    """
    if given is not None:
        yield given
        return
    yield Path(typed)
    beside = manifest.folder / described.get("from_manifest", typed)
    if beside.resolve() != Path(typed).resolve():
        yield beside


def _load(manifest: Manifest, path: Path | None, count: int) -> CalibrationSet:
    if path is None:
        return embedded_calibration(manifest.spec, manifest.preprocessing, count)
    return load_calibration(
        path, preprocessing=manifest.preprocessing, spec=manifest.spec, samples=count
    )
