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
from mobiledeploy.runtimes.trial import require_runnable
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
    output: str | None = None,
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
        output: Name of the output whose classes are counted; None for the first one.
        shard: Number of the part to evaluate and the number of parts.
        resume: A file that keeps what has been counted (see `evaluation.evaluate`).

    Raises:
        UsageError: the output is no classes or does not exist, or the artifacts take other inputs.
        ArtifactError: an artifact or its manifest is missing or damaged.
        DataError: the images have no labels, or one cannot be read.
    """
    manifests = [read_manifest(artifact) for artifact in artifacts]
    positions = [_position_of(output, manifest) for manifest in manifests]
    infos = [
        _beginning_with(position, manifest.info)
        for position, manifest in zip(positions, manifests, strict=True)
    ]
    _require_alike(manifests, infos)
    with step("Finding labelled images"):
        # an artifact of pixels needs images that are rounded to pixels
        strictest = max(infos, key=lambda each: each.input.format.is_pixels)
        stream = open_stream(data, strictest, samples)
    for note in stream.notes:
        warn(note)
    with ExitStack() as opened:
        networks = [_float(manifests[0], weights, positions[0])] if with_float else []
        for artifact, manifest, info, position in zip(
            artifacts, manifests, infos, positions, strict=True
        ):
            require_runnable(artifact)
            runner = opened.enter_context(open_runner(artifact, threads=threads))
            sha256 = manifest.artifact.sha256
            networks.append(_network(artifact.name, sha256, runner, info, position))
        name = infos[0].outputs[0].name
        return evaluate(networks, stream, output=name, shard=shard, resume=resume)


def _position_of(name: str | None, manifest: Manifest) -> int:
    """Return the position of the output to count; without a name the first.

    Raises:
        UsageError: there is no output of this name, or it is no classes.
    """
    outputs, file = manifest.info.outputs, manifest.artifact.file
    chosen = next((each for each in outputs if name in (None, each.name)), None)
    if chosen is None:
        raise UsageError(
            f"{file} has no output {name!r}; it has {', '.join(each.name for each in outputs)}."
        )
    if chosen.task != "classes":
        subject = f"The output {chosen.name}" if len(outputs) > 1 else "The outputs"
        others = [each.name for each in outputs if each.task == "classes"]
        raise UsageError(
            f"{subject} of {file} {'is' if len(outputs) > 1 else 'are'} no classes"
            f" ({chosen.task}), so there is no accuracy to count.",
            remedy=f"Pass --output {others[0]}."
            if others
            else "Use `mobiledeploy parity`, which compares such outputs with float.",
        )
    return outputs.index(chosen)


def _beginning_with(position: int, info: NetworkInfo) -> NetworkInfo:
    """Return what is known about a network, with one of its outputs as the first."""
    chosen, outputs = info.outputs[position], info.outputs
    return replace(info, outputs=(chosen, *outputs[:position], *outputs[position + 1 :]))


def _require_alike(manifests: Sequence[Manifest], infos: Sequence[NetworkInfo]) -> None:
    """Raise UsageError unless all networks have one input and the same number of classes."""
    first, classes = manifests[0], infos[0].classes
    for other, info in zip(manifests[1:], infos[1:], strict=True):
        for what, a, b in (
            ("input", _image(first), _image(other)),
            ("preprocessing", first.preprocessing, other.preprocessing),
            ("number of classes", classes, info.classes),
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
    position: int = 0,
    *,
    is_artifact: bool = True,
) -> Network:
    """Return a network to evaluate by the classes of the output at a position."""

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = artifact_inputs(images, info.input) if is_artifact else images
        found = list(runner.run({INPUT_NAME: inputs}).values())[position]
        return found.reshape(len(images), -1)

    return Network(name, sha256, f"{runner.runtime} {runner.version}", run)


def _float(manifest: Manifest, weights: Path | None, position: int) -> Network:
    """Return the float network that an artifact was made from."""
    model = rebuild_float(manifest, find_checkpoint(manifest, weights))
    sha256 = model.info.provenance.sha256 or ""
    runner = EagerRunner(model.module)
    return _network("float PyTorch", sha256, runner, model.info, position, is_artifact=False)
