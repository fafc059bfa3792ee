"""Evaluate artifacts on labelled images: read their manifests, open them, count.

Input: artifacts with manifests, and the path of the images. Output: an `Evaluation` (see
`evaluation.counts`).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.artifact.manifest import read_manifest
from mobiledeploy.data.pixels import artifact_inputs
from mobiledeploy.data.stream import open_stream
from mobiledeploy.errors import UsageError
from mobiledeploy.evaluation.evaluate import Network, evaluate
from mobiledeploy.network import INPUT_FORMATS, INPUT_NAME
from mobiledeploy.pipeline.rebuild import find_checkpoint, rebuild_float
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.runtimes.pytorch import EagerRunner
from mobiledeploy.utils.outputs import joined_arrays
from mobiledeploy.utils.progress import step, warn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.evaluation.counts import Evaluation
    from mobiledeploy.network import InputSpec, NetworkInfo
    from mobiledeploy.runtimes.runner import Runner


def evaluate_artifacts(
    artifacts: Sequence[Path],
    data: Path,
    *,
    samples: int | None = None,
    with_float: bool = False,
    weights: Path | None = None,
    threads: int = 1,
    shard: tuple[int, int] = (1, 1),
    resume: Path | None = None,
) -> Evaluation:
    """Count how often artifacts name the right class.

    Args:
        artifacts: Artifacts with the same input and classes, each with its manifest.
        data: Labelled images: a folder or an `.npz`.
        samples: Number of images to take, evenly spread; None takes all.
        with_float: Whether to run the float network of the first artifact, too; the others are
            then compared with it.
        weights: The checkpoint for that, if it has moved.
        threads: Threads that compute one inference.
        shard: Number of the part to evaluate and the number of parts.
        resume: A file that keeps what has been counted (see `evaluation.evaluate`).

    Raises:
        UsageError: the outputs are no classes, or the artifacts take other inputs.
        ArtifactError: an artifact or its manifest is missing or damaged.
        DataError: the images have no labels, or one cannot be read.
    """
    manifests = [read_manifest(artifact) for artifact in artifacts]
    _require_alike(manifests)
    with step("Finding labelled images"):
        # an artifact of pixels needs images that are rounded to pixels
        strictest = max(manifests, key=lambda each: each.info.input.format.is_pixels)
        stream = open_stream(data, strictest.info, samples)
    for note in stream.notes:
        warn(note)
    with ExitStack() as opened:
        networks = [_float(manifests[0], weights)] if with_float else []
        for artifact, manifest in zip(artifacts, manifests, strict=True):
            runner = opened.enter_context(open_runner(artifact, threads=threads))
            networks.append(
                _network(artifact.name, manifest.artifact.sha256, runner, manifest.info)
            )
        return evaluate(networks, stream, shard=shard, resume=resume)


def _require_alike(manifests: Sequence[Manifest]) -> None:
    """Raise UsageError unless all networks are classifiers with one input and the same classes."""
    first = manifests[0]
    if first.info.task != "classes":
        raise UsageError(
            f"The outputs of {first.artifact.file} are no classes ({first.info.task}), so there is"
            " no accuracy to count.",
            remedy="Use `mobiledeploy parity`, which compares such outputs with float.",
        )
    for other in manifests[1:]:
        for what, a, b in (
            ("input", _image(first), _image(other)),
            ("preprocessing", first.preprocessing, other.preprocessing),
            ("number of classes", first.info.classes, other.info.classes),
        ):
            if a != b:
                raise UsageError(
                    f"{first.artifact.file} and {other.artifact.file} differ in their {what}.",
                    remedy="Evaluate them one by one.",
                )


def _image(manifest: Manifest) -> InputSpec:
    """Return a network's input without its format, which may differ."""
    return replace(manifest.info.input, format=INPUT_FORMATS["float"])


def _network(
    name: str,
    sha256: str,
    runner: Runner | EagerRunner,
    info: NetworkInfo,
    *,
    is_artifact: bool = True,
) -> Network:
    """Return a network to evaluate by the classes of its first output."""

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = artifact_inputs(images, info.input) if is_artifact else images
        return joined_arrays(runner.run({INPUT_NAME: inputs}))[:, : info.classes]

    return Network(name, sha256, f"{runner.runtime} {runner.version}", run)


def _float(manifest: Manifest, weights: Path | None) -> Network:
    """Return the float network that an artifact was made from."""
    model = rebuild_float(manifest, find_checkpoint(manifest, weights))
    sha256 = model.info.provenance.sha256 or ""
    return _network(
        "float PyTorch", sha256, EagerRunner(model.module), model.info, is_artifact=False
    )
