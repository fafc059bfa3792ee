"""Run networks and artifacts on images, and add their rungs to a ladder, from float upwards.

Input: the network after each stage of the pipeline, images. Output: the rungs of a `Ladder`, which
compares the logits. `run_ladder` decides which rungs there are.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.data.pixels import artifact_inputs, colours_reversed, folded_inputs
from mobiledeploy.data.preprocess import pixels_reversed
from mobiledeploy.errors import ArtifactError, RuntimeFailedError
from mobiledeploy.network import INPUT_NAME
from mobiledeploy.parity.batches import run_in_batches
from mobiledeploy.parity.channel_order import reversed_channels
from mobiledeploy.parity.ladder import ACTIVATED, EXACT, CalibrationCheck, Check, Ladder
from mobiledeploy.parity.layer_codes import LAYER_IMAGES, compare_layers, explain
from mobiledeploy.parity.layer_noise import measure_layer_noise
from mobiledeploy.parity.rung_failures import constant_outputs, rounding_failures
from mobiledeploy.parity.tolerances import default_tolerances
from mobiledeploy.parity.types import ComparedArtifact
from mobiledeploy.parity.worst_images import worst_images
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.rounding_modes import rounding_differences
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.runtimes.pytorch import EagerRunner
from mobiledeploy.runtimes.runner import as_values
from mobiledeploy.stages import QuantizedModel, Stages, evenly_spread
from mobiledeploy.utils.files import sha256_of
from mobiledeploy.utils.outputs import activated, joined_arrays
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from mobiledeploy.parity.tolerances import Tolerances
    from mobiledeploy.parity.types import LayerNoise, RungName, WorstImage
    from mobiledeploy.quantization.integer_reference import Rounding
    from mobiledeploy.quantization.rounding_modes import RoundingDifference
    from mobiledeploy.runtimes.runner import Runner
    from mobiledeploy.stages import CalibrationSet, FoldedModel

    Images = NDArray[np.float32]
    Logits = NDArray[np.float32]
    Inputs = NDArray[Any]  # of artifacts: images, or pixels in uint8
    RunBatch = Callable[[Mapping[str, Inputs]], Mapping[str, Logits]]
    RunOnDevice = Callable[[Path, Inputs], tuple[NDArray[Any], ...]]

_CHANNEL_IMAGES = 200
_LAST_BITS = ACTIVATED["max_max_abs_difference"]
_RANDOM_WEIGHTS = "random weights have no accuracy to lose"


class LadderRunner:
    """Runs networks on images and adds their rungs to a ladder, from float upwards.

    Args:
        networks: The network after each stage of the pipeline.
        images: Preprocessed for the network.
        tolerances: The limits; by default those of the network's family.

    Attributes:
        reference: The integer reference; None for a float network.
        ladder: The rungs so far.
        artifacts: The artifacts that were run.
    """

    def __init__(
        self, networks: Stages, images: CalibrationSet, tolerances: Tolerances | None
    ) -> None:
        self._networks = networks
        self._images: Images = images.images
        self._image = networks.deployed.info.input
        self._inputs: Inputs = artifact_inputs(images.images, self._image)
        self._limits = tolerances or default_tolerances(networks.original.info)
        self._random = networks.original.info.has_random_weights
        self._task = networks.original.info.task
        self._has_classes = self._task == "classes" and not self._random
        self._first = networks.original.info.classes
        self._outputs = networks.original.info.outputs
        self._is_activated = not all(each.is_exact for each in self._outputs)
        self._labels = images.labels if self._has_classes else None
        deployed = networks.deployed
        self.reference = (
            IntegerReference(deployed) if isinstance(deployed, QuantizedModel) else None
        )
        step = self.reference.logit_step if self.reference and not self._is_activated else None
        self.ladder = Ladder(labels=self._labels, step=step, outputs=self._outputs)
        self.artifacts: list[ComparedArtifact] = []
        self._metadata: dict[Path, Mapping[str, object]] = {}
        self._differences: list[RoundingDifference] = []

    def add_stages(self, *, quick: bool) -> None:
        """Add the rungs before export: float, fold, equalize, integers.

        Args:
            quick: Leave out `fold`, `equalize` and `any-rounding` of an int8 network, and the
                check of the channels' order.
        """
        self._add_float(check_channels=not quick)
        note = _RANDOM_WEIGHTS if self._random else ""
        if note and self._limits.demanded:
            note += "; the requested limits apply to the artifacts"
        if not quick or self.reference is None:
            self._add_folded()
        if self._networks.equalized is not None and not quick:
            self._add_equalized(self._networks.equalized, self._networks.calibration, note)
        if self.reference is not None:
            exact = self.reference.exact and not quick
            run = self._trying_roundings(self.reference) if exact else self.reference.run
            self._add_integers(run, note)
            if exact:
                self._add_any_rounding(self.reference)

    def _add_float(self, *, check_channels: bool) -> None:
        started = time.perf_counter()
        run = EagerRunner(self._networks.original.module).run
        logits = run_in_batches(run, self._images, "Running PyTorch")
        failures = [] if self._random else constant_outputs(logits)
        if check_channels and self._images.shape[1] == 3 and self._has_classes:
            chosen = evenly_spread(len(self._images), _CHANNEL_IMAGES)
            preprocessing = self._networks.original.info.preprocessing
            bgr = pixels_reversed(self._images[chosen], preprocessing)
            other = run_in_batches(run, bgr, "Trying reversed channels")
            labels = None if self._labels is None else [self._labels[i] for i in chosen]
            problem = reversed_channels(
                logits[chosen][:, : self._first], other[:, : self._first], labels
            )
            failures += [problem] if problem else []
        self.ladder.add("float", logits, failures=failures, seconds=_since(started))

    def _add_folded(self) -> None:
        started = time.perf_counter()
        run = _folded(self._networks.folded)
        logits = run_in_batches(run, self._inputs, "Running the folded network")
        check = Check("float", {"min_sqnr_db": self._limits.min_rewrite_sqnr_db})
        self.ladder.add("fold", logits, [check], seconds=_since(started))

    def _add_equalized(
        self, model: FoldedModel, calibration: CalibrationSet | None, note: str
    ) -> None:
        """Add the rung of equalization, compared on the given and on calibration images."""
        assert calibration is not None, "equalization needs calibration images"
        started = time.perf_counter()
        run = _folded(model)
        logits = run_in_batches(run, self._inputs, "Running the equalized network")
        known = {INPUT_NAME: calibration.images[:LAYER_IMAGES]}
        calibration_check = CalibrationCheck(
            "fold",
            joined_arrays(_folded(self._networks.folded)(known)),
            joined_arrays(run(known)),
            {"min_sqnr_db": self._limits.min_rewrite_sqnr_db},
        )
        self.ladder.add(
            "equalize",
            logits,
            [Check("fold", {"min_sqnr_db": self._limits.min_equalized_sqnr_db}), Check("float")],
            calibration_check=calibration_check,
            note=note,
            seconds=_since(started),
        )

    def _trying_roundings(self, reference: IntegerReference) -> RunBatch:
        """Return the integer reference, which also collects what other rounding modes change."""

        def collect(rounding: Rounding) -> None:
            self._differences.extend(rounding_differences([rounding]))

        return partial(reference.run, on_rounding=collect)

    def _add_integers(self, run: RunBatch, note: str) -> None:
        started = time.perf_counter()
        logits = run_in_batches(run, self._inputs, "Running the integer reference")
        checks = [Check("equalize"), Check("float", self._limits.of_quantization())]
        self.ladder.add("integers", logits, checks, note=note, seconds=_since(started))

    def _add_any_rounding(self, reference: IntegerReference) -> None:
        """Add the rung of the same network in float, and of the integers in other roundings."""
        started = time.perf_counter()
        logits = run_in_batches(
            reference.run_in_float, self._inputs, "Running the quantized graph in float"
        )
        self.ladder.add(
            "any-rounding",
            logits,
            [Check("integers", EXACT)],
            failures=rounding_failures(reference, self._differences),
            seconds=_since(started),
        )

    def add_unoptimized_onnx(self, path: Path) -> None:
        """Add the rung of an `.onnx` without graph optimizations."""
        started = time.perf_counter()
        with open_runner(path, optimize=False) as runner:
            logits, failures = self._logits_of(runner, path, f"Running {path.name} unoptimized")
            layer = ""
            if self.reference is not None:  # finds faults that change no logit, too
                layer, problem = self._first_differing_layer(path, optimize=False)
                failures += [problem] if problem else []
        self.ladder.add(
            "onnx-unoptimized",
            logits,
            [self._contract(), Check("float")],
            artifact=path.name,
            failures=failures,
            first_differing_layer=layer,
            seconds=_since(started),
        )

    def add_artifact(self, path: Path) -> None:
        """Add the rung of an artifact in its runtime on this machine."""
        started = time.perf_counter()
        with open_runner(path) as runner:
            self.artifacts.append(_describe(path, runner))
            self._metadata[path] = runner.metadata
            logits, failures = self._logits_of(runner, path, f"Running {path.name}")
            layer = self._explain_difference(path, runner, logits, failures)
        self.ladder.add(
            _rung_of(path),
            logits,
            [self._rung_below(path), self._contract(), self._against_float()],
            artifact=path.name,
            failures=failures,
            first_differing_layer=layer,
            seconds=_since(started),
        )

    def add_device(self, path: Path, run: RunOnDevice) -> None:
        """Add the rung of an artifact on the device; it must equal the same artifact here.

        Call `add_artifact` before.
        """
        started = time.perf_counter()
        values = as_values(run(path, self._inputs), self._metadata[path])
        logits = joined_arrays(values)
        contract = self._contract()
        below = Check(_rung_of(path), contract.limits, path.name)
        checks = [below, contract, self._against_float()]
        self.ladder.add("device", logits, checks, artifact=path.name, seconds=_since(started))

    def layer_noise(self) -> tuple[LayerNoise, ...]:
        """Return the quantization noise of each layer; empty for a float network."""
        if self.reference is None or self._networks.equalized is None:
            return ()
        images = folded_inputs(self._inputs[:LAYER_IMAGES], self._image)
        return measure_layer_noise(self.reference, self._networks.equalized, images)

    def worst_images(self, images: CalibrationSet, count: int) -> tuple[WorstImage, ...]:
        """Return the `count` images on which the last rung with logits is farthest from float.

        None are returned if the outputs are no classes.
        """
        exact = self.ladder.logits("float")
        rungs = [r for r in self.ladder.rungs if not (self._is_activated and r.artifact)]
        reached = [self.ladder.logits(rung.name, rung.artifact) for rung in rungs]
        last = next((logits for logits in reversed(reached) if logits is not None), None)
        if exact is None or last is None or exact.shape != last.shape or count == 0:
            return ()
        if self._task != "classes" or len(self._outputs) > 1:
            return ()
        info = self._networks.original.info
        return worst_images(
            self._images,
            exact,
            last,
            count=count,
            names=images.names,
            labels=self._labels,
            classes=info.labels,
            preprocessing=info.preprocessing,
        )

    def _contract(self) -> Check:
        """Return which rung an artifact must equal or stay close to."""
        if self.reference is None:
            return Check("fold", {"min_sqnr_db": self._limits.min_float_sqnr_db})
        if self.reference.exact:
            return Check("integers", ACTIVATED if self._is_activated else EXACT)
        return Check("integers", {"min_sqnr_db": self._limits.min_mixed_sqnr_db})

    def _against_float(self) -> Check:
        """Return the comparison of an artifact with float.

        The limits of quantization apply to the integer reference. An artifact that must equal it
        meets them too; one with layers in float need not equal it and has to meet them itself.
        """
        limits = dict(self._limits.demanded)
        if self.reference is not None and not self.reference.exact and not self._random:
            limits |= self._limits.of_quantization()
        return Check("float", limits)

    def _rung_below(self, path: Path) -> Check:
        if Format.of(path) is Format.ONNX:
            return Check("onnx-unoptimized", artifact=path.name)
        onnx = next((a.file for a in self.artifacts if a.file.endswith(".onnx")), "")
        return Check("onnx", artifact=onnx)

    def _logits_of(
        self, runner: Runner, path: Path, description: str
    ) -> tuple[Logits | None, list[str]]:
        """Return an artifact's logits, or None and why it cannot run."""
        expected = self._inputs.shape[1:]
        found = (runner.input_type, runner.input_shape or expected)
        if found != (self._inputs.dtype.name, expected):
            problem = (
                f"{path.name} takes {found[0]} inputs of shape {found[1]}, the network"
                f" {self._inputs.dtype} {expected}: it holds another network."
            )
            return None, [problem]
        in_parallel = runner.thread_safe
        return run_in_batches(runner.run, self._inputs, description, in_parallel=in_parallel), []

    def _explain_difference(
        self, path: Path, runner: Runner, logits: Logits | None, failures: list[str]
    ) -> str:
        """If logits differ from the integer reference, add what can be found out to `failures`.

        Returns:
            The first layer that differs; empty where none was found.
        """
        expected = self.ladder.logits("integers")
        if logits is None or expected is None or np.array_equal(logits, expected):
            return ""
        if self._is_activated:
            expected = activated(expected, self._outputs)
            if logits.shape == expected.shape and np.abs(logits - expected).max() <= _LAST_BITS:
                return ""
        few = self._inputs[:LAYER_IMAGES]
        if self._images.shape[1] == 3 and logits.shape == expected.shape:
            swapped = joined_arrays(runner.run({INPUT_NAME: colours_reversed(few, self._image)}))
            if np.array_equal(swapped, expected[: len(few)]):
                failures.append("With reversed channels its logits are equal: it takes BGR.")
        if Format.of(path) is not Format.ONNX:
            return ""
        layer, problem = self._first_differing_layer(path, optimize=True)
        failures += [problem] if problem else []
        return layer

    def _first_differing_layer(self, path: Path, *, optimize: bool) -> tuple[str, str]:
        """Return the first layer of an `.onnx` that differs, and a sentence about it.

        Args:
            path: The artifact.
            optimize: Whether ONNX Runtime may fuse the layers into integer operators.
        """
        assert self.reference is not None
        max_half_way = None if self.reference.exact else self._limits.max_half_way
        try:
            with step(f"Comparing the layers of {path.name}"):
                layers = compare_layers(
                    path, self.reference, self._inputs, max_half_way, optimize=optimize
                )
        except (ArtifactError, RuntimeFailedError) as error:
            return "", error.message
        differing = next((layer.name for layer in layers if layer.unexplained), "")
        return differing, explain(layers)


def _folded(model: FoldedModel) -> RunBatch:
    """Return a function that runs a folded network on the inputs of artifacts."""
    runner = EagerRunner(model.module)
    return lambda inputs: runner.run(
        {INPUT_NAME: folded_inputs(inputs[INPUT_NAME], model.info.input)}
    )


def _rung_of(path: Path) -> RungName:
    return cast("RungName", Format.of(path).value)


def _since(started: float) -> float:
    return time.perf_counter() - started


def _describe(path: Path, runner: Runner) -> ComparedArtifact:
    return ComparedArtifact(
        file=path.name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        runtime=f"{runner.runtime} {runner.version}",
    )
