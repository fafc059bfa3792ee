"""Run every stage of a network and its artifacts on the same images, and build the parity ladder.

Input: the network after each stage of the pipeline, its artifacts, images. Output: a
`ParityReport`. `ladder` compares the logits, `tolerances` has the limits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.parity.ladder_runner import LadderRunner
from mobiledeploy.parity.layer_noise import first_noisy
from mobiledeploy.parity.types import DataUsed, ParityReport
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mobiledeploy.parity.ladder_runner import RunOnDevice
    from mobiledeploy.parity.tolerances import Tolerances
    from mobiledeploy.stages import CalibrationSet, Stages


@on_one_thread
def run_ladder(
    networks: Stages,
    artifacts: Sequence[Path],
    images: CalibrationSet,
    *,
    tolerances: Tolerances | None = None,
    quick: bool = False,
    layers: bool = False,
    worst: int = 0,
    on_device: RunOnDevice | None = None,
) -> ParityReport:
    """Run all stages and artifacts of a network on images, and compare them rung by rung.

    Args:
        networks: The network after each stage of the pipeline.
        artifacts: `.onnx`, `.pte` and `.tflite` files of it.
        images: Preprocessed for the network.
        tolerances: The limits; by default those of the network's family.
        quick: Leave out the rungs that only locate a loss: for a network that was just made.
        layers: Also measure the quantization noise of each layer.
        worst: Also report so many images on which the last rung is farthest from float.
        on_device: Runs an artifact on its inputs on a device and returns the logits.
            Adds the rungs "device".

    Raises:
        ArtifactError: a runtime does not accept an artifact.
        RuntimeFailedError: a runtime or the device failed.
    """
    runner = LadderRunner(networks, images, tolerances)
    runner.add_stages(quick=quick)
    ordered = sorted(artifacts, key=lambda path: path.suffix)  # .onnx first
    for path in ordered:
        if Format.of(path) is Format.ONNX and not quick:
            runner.add_unoptimized_onnx(path)
        runner.add_artifact(path)
    if on_device is not None:
        for path in ordered:
            runner.add_device(path, on_device)
    noise = runner.layer_noise() if layers else ()
    return ParityReport(
        network=networks.deployed.info.name,
        precision="int8" if runner.reference else "fp32",
        task=networks.original.info.task,
        float_bytes=sum(t.nbytes for t in networks.folded.module.state_dict().values()),
        data=_data_used(images, networks.calibration),
        artifacts=tuple(runner.artifacts),
        rungs=tuple(runner.ladder.rungs),
        layers=noise,
        first_noisy_layer=first_noisy(noise),
        worst_images=runner.worst_images(images, worst),
    )


def _data_used(images: CalibrationSet, calibration: CalibrationSet | None) -> DataUsed:
    return DataUsed(
        source=images.source,
        count=images.count,
        sha256=images.sha256,
        labelled=images.labels is not None,
        calibration=calibration is not None and calibration.shares_source(images),
    )
