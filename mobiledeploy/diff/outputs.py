"""Two artifacts on the same images: against each other, against float, against the labels.

In: two sides with their files, and where images lie. Out: an `OutputsDiff`. Each artifact gets the
images as its own manifest says that it takes them, and is held against its own float network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.data.calibration import load_calibration
from mobiledeploy.diff.types import Flip, FloatComparison, OutputsDiff, PairedComparison
from mobiledeploy.errors import ArtifactError, LoadError
from mobiledeploy.metrics import sign_test, sqnr_db, top1_agreement
from mobiledeploy.network import EMBEDDED, INPUT_NAME, OUTPUT_NAME
from mobiledeploy.parity.compare import figures
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.runtimes.pytorch import EagerRunner
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import batch_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.diff.open_artifact import OpenArtifact
    from mobiledeploy.network import CalibrationSet

    Logits = NDArray[np.float32]
    FloatModule = Callable[[Manifest], nn.Module]
    Run = Callable[[Mapping[str, NDArray[np.float32]]], Mapping[str, Logits]]


def compare_outputs(
    a: OpenArtifact,
    b: OpenArtifact,
    source: Path,
    samples: int | None,
    float_module: FloatModule,
) -> tuple[OutputsDiff | None, list[str]]:
    """Run both artifacts on images; return what differs, and notes on what was not compared.

    Logits that are not finite differ from all others: then there is nothing but a note.

    Raises:
        ArtifactError: only the manifest of one is there, or a runtime refuses a file.
        DataError: there are no images.
    """
    sides = a, b
    images = [_images(side, source, samples) for side in sides]
    logits = [_logits(side, given) for side, given in zip(sides, images, strict=True)]
    broken = _broken(sides, logits)
    if broken:
        return None, [f"{' and '.join(broken)}: no outputs were compared."]
    floats, notes = _float_logits(sides, images, float_module)
    notes += _flattered(sides, source)
    found: dict[str, float] = {}
    flips: tuple[Flip, ...] = ()
    if logits[0].shape == logits[1].shape:
        found = figures(logits[0], logits[1])
        flips = _flips(logits, images[0], (a.manifest.labels, b.manifest.labels))
    else:
        classes = " and ".join(str(answers.shape[1]) for answers in logits)
        notes.append(f"Networks of {classes} classes: their logits were not compared.")
    losses = [_loss(*each) for each in zip(floats, logits, images, strict=True)]
    right, both_right = _right(logits, images)
    return OutputsDiff(
        count=images[0].count,
        source=str(source),
        figures=found,
        flips=flips,
        a_loss=losses[0],
        b_loss=losses[1],
        nearer=_nearer(floats, logits),
        right=right,
        both_right=both_right,
    ), notes


def _images(side: OpenArtifact, source: Path, samples: int | None) -> CalibrationSet:
    return load_calibration(source, side.manifest.info, samples=samples)


def _logits(side: OpenArtifact, images: CalibrationSet) -> Logits:
    if side.artifact is None:
        raise ArtifactError(
            f"The artifact of {side.given} is not beside its manifest, so it cannot be run.",
            remedy="Put it there, or leave --data out.",
        )
    with open_runner(side.artifact) as runner:
        return _run(runner.run, images, f"Running {side.given}")


def _broken(sides: tuple[OpenArtifact, OpenArtifact], logits: Sequence[Logits]) -> list[str]:
    """Return words for every artifact whose logits are not all finite."""
    bad = [int(np.count_nonzero(~np.isfinite(answers))) for answers in logits]
    return [
        f"{count} of {answers.size} logits of {side.given} are NaN or infinite"
        for side, answers, count in zip(sides, logits, bad, strict=True)
        if count
    ]


def _run(run: Run, images: CalibrationSet, description: str) -> Logits:
    few = batch_slices(images.images)
    answers = (run({INPUT_NAME: images.images[part]})[OUTPUT_NAME] for part in few)
    return np.concatenate(list(track(answers, description, len(few))))


def _float_logits(
    sides: tuple[OpenArtifact, OpenArtifact],
    images: Sequence[CalibrationSet],
    float_module: FloatModule,
) -> tuple[list[Logits | None], list[str]]:
    """Return what each artifact's float network answers, where that can still be built."""
    answers: list[Logits | None] = []
    notes: list[str] = []
    known: dict[str, Logits] = {}
    for side, given in zip(sides, images, strict=True):
        key = _float_network(side)
        try:
            if key not in known:
                module = float_module(side.manifest)
                known[key] = _run(EagerRunner(module).run, given, "Running the float network")
        except LoadError as error:
            notes.append(f"{side.given} was not compared with its float network: {error.message}")
        answers.append(known.get(key))
    return answers, notes


def _loss(
    reference: Logits | None, answers: Logits, images: CalibrationSet
) -> FloatComparison | None:
    if reference is None:
        return None
    return FloatComparison(
        sqnr_db=sqnr_db(reference, answers),
        agreement=top1_agreement(reference, answers),
        images=images.count,
        source=images.source,
    )


def _nearer(floats: Sequence[Logits | None], logits: Sequence[Logits]) -> PairedComparison | None:
    """Return on how many images each is nearer to its float network, by the squared error."""
    noise = [
        np.square(reference - answers, dtype=np.float64).sum(1)
        for reference, answers in zip(floats, logits, strict=True)
        if reference is not None
    ]
    return _duel(noise[0] < noise[1], noise[1] < noise[0]) if len(noise) == 2 else None


def _duel(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> PairedComparison:
    wins = int(a.sum()), int(b.sum())
    return PairedComparison(a=wins[0], b=wins[1], chance=sign_test(*wins))


def _flattered(sides: tuple[OpenArtifact, OpenArtifact], source: Path) -> list[str]:
    """Return a note on every artifact that the images suit because it was calibrated with them."""
    notes = []
    for side in sides:
        described = side.manifest.document.get("calibration", {})
        typed = described.get("source", EMBEDDED)
        known = [] if typed == EMBEDDED else side.manifest.places_of(typed, described)
        if source.resolve() in [place.resolve() for place in known]:
            notes.append(f"{side.given} was calibrated with images of {source}: they suit it.")
    return notes


def _float_network(side: OpenArtifact) -> str:
    """Return a key that is the same for sides whose float networks answer the same."""
    document = side.manifest.document
    spec = {name: value for name, value in document["spec"].items() if name != "weights"}
    return repr((spec, document["weights"]["sha256"], document["preprocessing"]))


def _flips(
    logits: Sequence[Logits], images: CalibrationSet, classes: Sequence[Sequence[str]]
) -> tuple[Flip, ...]:
    a, b = logits
    first, other = a.argmax(1), b.argmax(1)
    flips = [
        Flip(
            image=images.names[i],
            a=_label(classes[0], int(first[i])),
            b=_label(classes[1], int(other[i])),
            margin=float(a[i, first[i]] - a[i, other[i]]),
            truth="" if images.labels is None else _label(classes[0], images.labels[i]),
        )
        for i in np.flatnonzero(first != other)
    ]
    return tuple(sorted(flips, key=lambda flip: -flip.margin))


def _label(classes: Sequence[str], index: int) -> str:
    return classes[index] if index < len(classes) else f"class {index}"


def _right(
    logits: Sequence[Logits], images: Sequence[CalibrationSet]
) -> tuple[PairedComparison | None, int | None]:
    """Return which is right on how many labelled images, alone and both; None without labels."""
    right = [
        answers.argmax(1) == np.asarray(given.labels)
        for answers, given in zip(logits, images, strict=True)
        if given.labels is not None
    ]
    if len(right) < 2:
        return None, None
    a, b = right
    return _duel(a & ~b, b & ~a), int(np.sum(a & b))
