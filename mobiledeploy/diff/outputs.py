"""Compare two artifacts on the same images: with each other, with float, with the labels.

In: two artifacts with their files, and images. Out: an `OutputsDiff`. Each artifact gets the images
with the preprocessing of its own manifest, and is compared with its own float network.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.data.calibration import load_calibration
from mobiledeploy.data.pixels import artifact_inputs
from mobiledeploy.diff.types import Flip, FloatComparison, OutputsDiff, PairedComparison
from mobiledeploy.errors import ArtifactError, LoadError
from mobiledeploy.network import INPUT_NAME
from mobiledeploy.parity.compare import compare_logits
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.runtimes.pytorch import EagerRunner
from mobiledeploy.runtimes.trial import require_runnable
from mobiledeploy.significance import sign_test
from mobiledeploy.utils.outputs import activated, joined_arrays
from mobiledeploy.utils.progress import track
from mobiledeploy.utils.threads import batch_slices

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.diff.open_artifact import OpenArtifact
    from mobiledeploy.network import Task
    from mobiledeploy.parity.types import Metrics
    from mobiledeploy.stages import CalibrationSet

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

    Logits that are not finite cannot be compared: the result is then None with a note.

    Raises:
        ArtifactError: only the manifest of one is there, or a runtime refuses a file.
        DataError: there are no images.
    """
    pair = a, b
    images = [load_calibration(source, each.manifest.info, samples=samples) for each in pair]
    logits = [_logits(each, given) for each, given in zip(pair, images, strict=True)]
    not_finite = _describe_not_finite(pair, logits)
    if not_finite:
        return None, [f"{' and '.join(not_finite)}: outputs were not compared."]
    float_logits, notes = _float_logits(pair, images, float_module)
    notes += _calibration_notes(pair, source)
    metrics: Metrics = {}
    flips: tuple[Flip, ...] = ()
    if logits[0].shape == logits[1].shape:
        task = _task_of(a)
        metrics = compare_logits(logits[0], logits[1], task=task)
        if task == "classes":
            flips = _flips(logits, images[0], (a.manifest.labels, b.manifest.labels))
    else:
        classes = " and ".join(str(each.shape[1]) for each in logits)
        notes.append(f"The networks have {classes} classes: their logits were not compared.")
    against_float = [
        _against_float(*each) for each in zip(pair, float_logits, logits, images, strict=True)
    ]
    judged = all(_task_of(each) == "classes" for each in pair)
    correct, both_correct = _correct(logits, images) if judged else (None, None)
    return OutputsDiff(
        count=images[0].count,
        source=str(source),
        metrics=metrics,
        flips=flips,
        a_against_float=against_float[0],
        b_against_float=against_float[1],
        closer_to_float=_closer_to_float(float_logits, logits),
        correct=correct,
        both_correct=both_correct,
    ), notes


def _task_of(artifact: OpenArtifact) -> Task:
    """Return what the outputs mean; several are compared as numbers, without classes."""
    info = artifact.manifest.info
    return info.task if len(info.outputs) == 1 else "boxes"


def _logits(artifact: OpenArtifact, images: CalibrationSet) -> Logits:
    """Return the artifact's logits, (N, classes)."""
    if artifact.path is None:
        raise ArtifactError(
            f"The artifact of {artifact.given} is not beside its manifest, so it cannot be run.",
            remedy="Put it there, or leave --data out.",
        )
    image = artifact.manifest.info.input

    def run(inputs: Mapping[str, NDArray[np.float32]]) -> Mapping[str, Logits]:
        return runner.run({INPUT_NAME: artifact_inputs(inputs[INPUT_NAME], image)})

    require_runnable(artifact.path)
    with open_runner(artifact.path) as runner:
        return _run(run, images, f"Running {artifact.given}")


def _run(run: Run, images: CalibrationSet, description: str) -> Logits:
    batches = batch_slices(images.images)
    logits = (joined_arrays(run({INPUT_NAME: images.images[batch]})) for batch in batches)
    return np.concatenate(list(track(logits, description, len(batches))))


def _describe_not_finite(pair: Sequence[OpenArtifact], logits: Sequence[Logits]) -> list[str]:
    """Return a phrase for each artifact with logits that are NaN or infinite."""
    counts = [int(np.count_nonzero(~np.isfinite(each))) for each in logits]
    return [
        f"{count} of {each.size} logits of {artifact.given} are NaN or infinite"
        for artifact, each, count in zip(pair, logits, counts, strict=True)
        if count
    ]


def _float_logits(
    pair: Sequence[OpenArtifact], images: Sequence[CalibrationSet], float_module: FloatModule
) -> tuple[list[Logits | None], list[str]]:
    """Return the logits of each artifact's float network; None and a note if it cannot be built."""
    logits: list[Logits | None] = []
    notes: list[str] = []
    known: dict[str, Logits] = {}  # both artifacts often have the same float network
    for artifact, given in zip(pair, images, strict=True):
        key = _float_network_key(artifact.manifest)
        try:
            if key not in known:
                module = float_module(artifact.manifest)
                known[key] = _run(EagerRunner(module).run, given, "Running the float network")
        except LoadError as error:
            notes.append(
                f"{artifact.given} was not compared with its float network: {error.message}"
            )
        logits.append(known.get(key))
    return logits, notes


def _float_network_key(manifest: Manifest) -> str:
    """Return a key that is equal for manifests with the same float network and preprocessing."""
    spec = asdict(manifest.spec) | {"weights": ""}
    return repr((spec, manifest.weights.sha256, manifest.preprocessing))


def _calibration_notes(pair: Sequence[OpenArtifact], source: Path) -> list[str]:
    """Return a note for each artifact that was calibrated with these images."""
    return [
        f"{artifact.given} was calibrated with images from {source}, which favours it."
        for artifact in pair
        if source.resolve() in {p.resolve() for p in artifact.manifest.calibration_paths()}
    ]


def _against_float(
    artifact: OpenArtifact, reference: Logits | None, candidate: Logits, images: CalibrationSet
) -> FloatComparison | None:
    if reference is None:
        return None
    reference = activated(reference, artifact.manifest.info.outputs)
    found = compare_logits(reference, candidate, task=_task_of(artifact))
    return FloatComparison(
        sqnr_db=found.get("sqnr_db", math.nan),
        top1_agreement=found.get("top1_agreement"),
        images=images.count,
        source=images.source,
    )


def _closer_to_float(
    float_logits: Sequence[Logits | None], logits: Sequence[Logits]
) -> PairedComparison | None:
    """Return on how many images each is closer to its float network, by squared error."""
    errors = [
        np.square(reference - candidate, dtype=np.float64).sum(1)
        for reference, candidate in zip(float_logits, logits, strict=True)
        if reference is not None
    ]
    if len(errors) < 2:
        return None
    return _paired(errors[0] < errors[1], errors[1] < errors[0])


def _paired(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> PairedComparison:
    wins = int(a.sum()), int(b.sum())
    return PairedComparison(a=wins[0], b=wins[1], p_value=sign_test(*wins))


def _correct(
    logits: Sequence[Logits], images: Sequence[CalibrationSet]
) -> tuple[PairedComparison | None, int | None]:
    """Return on how many images only one, and both, predict the label; None without labels."""
    correct = [
        each.argmax(1) == np.asarray(given.labels)
        for each, given in zip(logits, images, strict=True)
        if given.labels is not None
    ]
    if len(correct) < 2:
        return None, None
    a, b = correct
    return _paired(a & ~b, b & ~a), int(np.sum(a & b))


def _flips(
    logits: Sequence[Logits], images: CalibrationSet, labels: Sequence[Sequence[str]]
) -> tuple[Flip, ...]:
    a, b = logits
    top_a, top_b = a.argmax(1), b.argmax(1)
    flips = [
        Flip(
            image=images.names[i],
            a=_class_name(labels[0], int(top_a[i])),
            b=_class_name(labels[1], int(top_b[i])),
            margin=float(a[i, top_a[i]] - a[i, top_b[i]]),
            label="" if images.labels is None else _class_name(labels[0], images.labels[i]),
        )
        for i in np.flatnonzero(top_a != top_b)
    ]
    return tuple(sorted(flips, key=lambda flip: -flip.margin))


def _class_name(labels: Sequence[str], index: int) -> str:
    return labels[index] if index < len(labels) else f"class {index}"
