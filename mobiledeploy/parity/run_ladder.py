"""Run every network of the ladder on the same images, and have each rung judged.

In: the network in all its stages, its artifacts, images. Out: a `ParityReport`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.data.preprocess import channels_reversed, pixels_reversed
from mobiledeploy.errors import ArtifactError, RuntimeFailedError
from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME, QuantizedModel, Stages, evenly_spread
from mobiledeploy.parity.channel_order import reversed_channels
from mobiledeploy.parity.ladder import EXACT, CalibrationCheck, Check, Ladder
from mobiledeploy.parity.layer_codes import LAYER_IMAGES, explain, in_batches, layer_codes
from mobiledeploy.parity.layer_noise import first_bad, layer_errors
from mobiledeploy.parity.tolerances import default_tolerances
from mobiledeploy.parity.types import Compared, DataUsed, ParityReport
from mobiledeploy.parity.worst_images import worst_images
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.runtimes.pytorch import EagerRunner
from mobiledeploy.utils.files import sha256_of
from mobiledeploy.utils.progress import step, track
from mobiledeploy.utils.threads import on_one_thread, parallel_map

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from mobiledeploy.network import CalibrationSet, FoldedModel
    from mobiledeploy.parity.tolerances import Tolerances
    from mobiledeploy.parity.types import ImageError, LayerError, RungName
    from mobiledeploy.runtimes.runner import Runner

    Images = NDArray[np.float32]
    Logits = NDArray[np.float32]
    OnDevice = Callable[[Path, Images], Logits]

_CHANNEL_IMAGES = 200
_UNJUDGED = "random weights have no accuracy to lose"


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
    on_device: OnDevice | None = None,
) -> ParityReport:
    """Climb the ladder.

    Args:
        networks: What the artifacts are held against.
        artifacts: `.onnx` and `.pte` of it.
        images: As the network takes them.
        tolerances: What passes; by default what the family's networks reach.
        quick: Leave out the rungs that only tell where a loss came from: for a network that has
            just been made.
        layers: Also say what quantization does to each layer.
        worst: Also show so many images on which the last rung is farthest from float.
        on_device: Runs an artifact on (N, C, H, W) somewhere else and returns its logits; adds the
            last rung.

    Raises:
        ArtifactError: a runtime does not accept an artifact.
        RuntimeFailedError: a runtime or the device failed.
    """
    climber = LadderRunner(networks, images, tolerances)
    climber.stages(quick=quick)
    ordered = sorted(artifacts, key=lambda path: path.suffix)  # .onnx before .pte
    for path in ordered:
        climber.on_host(path, as_written=not quick and path.suffix == ".onnx")
    if on_device is not None:
        for path in ordered:
            climber.on_device(path, on_device)
    found = climber.layer_errors() if layers else ()
    return ParityReport(
        network=networks.deployed.info.name,
        precision="int8" if climber.reference else "fp32",
        data=_data_used(images, networks.calibration),
        artifacts=tuple(climber.compared),
        rungs=tuple(climber.ladder.rungs),
        layers=found,
        first_bad_layer=first_bad(found),
        worst_images=climber.worst_images(images, worst),
    )


def _data_used(images: CalibrationSet, calibration: CalibrationSet | None) -> DataUsed:
    return DataUsed(
        source=images.source,
        count=images.count,
        sha256=images.sha256,
        labelled=images.labels is not None,
        calibration=calibration is not None and calibration.shares_source(images),
    )


class LadderRunner:
    """Runs networks and adds rungs; holds what several rungs need."""

    def __init__(
        self, networks: Stages, images: CalibrationSet, tolerances: Tolerances | None
    ) -> None:
        self.networks = networks
        self.inputs: Images = images.images
        self.limits = tolerances or default_tolerances(networks.original.info)
        self.random = networks.original.info.has_random_weights
        self.labels = None if self.random else images.labels
        deployed = networks.deployed
        self.reference = (
            IntegerReference(deployed) if isinstance(deployed, QuantizedModel) else None
        )
        self.ladder = Ladder(
            labels=self.labels,
            step=self.reference.logit_step if self.reference else None,
        )
        self.compared: list[Compared] = []

    def stages(self, *, quick: bool) -> None:
        """Add the rungs before export."""
        self._float(quick=quick)
        note = _UNJUDGED if self.random else ""
        if note and self.limits.demanded:
            note += "; what was asked for is held against the artifacts"
        if not quick or self.reference is None:
            self._eager("fold", self.networks.folded, "float", self.limits.min_rewrite_sqnr_db)
        if self.networks.equalized is not None and not quick:
            self._equalized(self.networks.equalized, self.networks.calibration, note)
        if self.reference is not None:
            began = time.perf_counter()
            logits = _run(self.reference.run, self.inputs, "Running the integer reference")
            held = (Check("equalize", {}), Check("float", self.limits.of_quantization()))
            seconds = time.perf_counter() - began
            self.ladder.add("integers", logits, held, note=note, seconds=seconds)

    def _float(self, *, quick: bool) -> None:
        began = time.perf_counter()
        run = EagerRunner(self.networks.original.module).run
        logits = _run(run, self.inputs, "Running PyTorch")
        trouble = ""
        if self.inputs.shape[1] == 3 and not self.random and not quick:
            chosen = evenly_spread(len(self.inputs), _CHANNEL_IMAGES)
            bgr = pixels_reversed(self.inputs[chosen], self.networks.original.info.preprocessing)
            other = _run(run, bgr, "Trying reversed channels")
            labels = None if self.labels is None else [self.labels[i] for i in chosen]
            trouble = reversed_channels(logits[chosen], other, labels)
        failures = [trouble] if trouble else []
        self.ladder.add("float", logits, failures=failures, seconds=time.perf_counter() - began)

    def _eager(self, name: RungName, model: FoldedModel, below: RungName, limit: float) -> None:
        began = time.perf_counter()
        logits = _run(EagerRunner(model.module).run, self.inputs, "Running it folded")
        held = [Check(below, {"min_sqnr_db": limit})]
        self.ladder.add(name, logits, held, seconds=time.perf_counter() - began)

    def _equalized(self, model: FoldedModel, calibration: CalibrationSet | None, note: str) -> None:
        """Add the rung of equalization: on the user's images, and on some that it was made with."""
        assert calibration is not None, "equalization needs calibration images"
        began = time.perf_counter()
        run = EagerRunner(model.module).run
        logits = _run(run, self.inputs, "Running it equalized")
        known = calibration.images[:LAYER_IMAGES]
        elsewhere = CalibrationCheck(
            "fold",
            EagerRunner(self.networks.folded.module).run({INPUT_NAME: known})[OUTPUT_NAME],
            run({INPUT_NAME: known})[OUTPUT_NAME],
            {"min_sqnr_db": self.limits.min_rewrite_sqnr_db},
        )
        held = (
            Check("fold", {"min_sqnr_db": self.limits.min_equalized_sqnr_db}),
            Check("float", {}),
        )
        seconds = time.perf_counter() - began
        self.ladder.add("equalize", logits, held, elsewhere=elsewhere, note=note, seconds=seconds)

    def on_host(self, path: Path, *, as_written: bool) -> None:
        """Add an artifact's rungs on this machine."""
        name: RungName = "onnx" if path.suffix == ".onnx" else "pte"
        if as_written:
            self._as_written(path)
        began = time.perf_counter()
        with open_runner(path) as runner:
            self.compared.append(_compared(path, runner))
            logits, failures = self._answer(runner, path, f"Running {path.name}")
            onnx = next((c.file for c in self.compared if c.file.endswith(".onnx")), "")
            below = Check("onnx-as-written", {}, path.name)
            if name == "pte":
                below = Check("onnx", {}, onnx)
            layer = self._explain_inexact(path, runner, logits, failures)
        self.ladder.add(
            name,
            logits,
            [below, self._contract(), self._versus_float()],
            artifact=path.name,
            failures=failures,
            first_layer=layer,
            seconds=time.perf_counter() - began,
        )

    def on_device(self, path: Path, run: OnDevice) -> None:
        """Add an artifact's rung on the device."""
        began = time.perf_counter()
        logits = run(path, self.inputs)
        host: RungName = "onnx" if path.suffix == ".onnx" else "pte"
        contract = self._contract()
        held = [Check(host, contract.limits, path.name), contract, self._versus_float()]
        seconds = time.perf_counter() - began
        self.ladder.add("device", logits, held, artifact=path.name, seconds=seconds)

    def layer_errors(self) -> tuple[LayerError, ...]:
        """Return what quantization does to each layer; nothing where the network is float."""
        if self.reference is None or self.networks.equalized is None:
            return ()
        return layer_errors(self.reference, self.networks.equalized, self.inputs)

    def worst_images(self, images: CalibrationSet, count: int) -> tuple[ImageError, ...]:
        """Return the images on which the last rung that has logits is farthest from float."""
        exact = self.ladder.logits("float")
        reached = [self.ladder.logits(rung.name, rung.artifact) for rung in self.ladder.rungs]
        last = next((logits for logits in reversed(reached) if logits is not None), None)
        if exact is None or last is None or exact.shape != last.shape or count == 0:
            return ()
        model = self.networks.original
        return worst_images(
            self.inputs,
            exact,
            last,
            count=count,
            names=images.names,
            truth=self.labels,
            classes=model.info.labels,
            preprocessing=model.info.preprocessing,
        )

    def _contract(self) -> Check:
        """Return what every runtime is held to."""
        if self.reference is not None and self.reference.exact:
            return Check("integers", EXACT)
        if self.reference is not None:
            return Check("integers", {"min_sqnr_db": self.limits.min_mixed_sqnr_db})
        return Check("fold", {"min_sqnr_db": self.limits.min_float_sqnr_db})

    def _versus_float(self) -> Check:
        """Return what every artifact is held to against float.

        One that has to equal the integers is judged with them. With layers in float it need not.
        """
        limits = dict(self.limits.demanded)
        if self.reference is not None and not self.reference.exact and not self.random:
            limits |= self.limits.of_quantization()
        return Check("float", limits)

    def _as_written(self, path: Path) -> None:
        """Add the rung of an `.onnx` without graph optimizations."""
        began = time.perf_counter()
        with open_runner(path, optimize=False) as runner:
            description = f"Running {path.name} as written"
            logits, failures = self._answer(runner, path, description)
        layer = ""
        held = [self._contract(), Check("float", {})]
        if self.reference is not None:
            held[0] = Check("integers", {})  # in float: its layers are judged, not its logits
            layer, text = self._odd_layer(path, optimize=False)
            failures += [text] if text else []
        self.ladder.add(
            "onnx-as-written",
            logits,
            held,
            artifact=path.name,
            failures=failures,
            first_layer=layer,
            seconds=time.perf_counter() - began,
        )

    def _answer(
        self, runner: Runner, path: Path, description: str
    ) -> tuple[Logits | None, list[str]]:
        """Return an artifact's logits, or why it cannot be asked."""
        expected = self.inputs.shape[1:]
        if runner.input_shape is not None and runner.input_shape != expected:
            text = f"{path.name} takes {runner.input_shape}, the network {expected}: it is another."
            return None, [text]
        # ExecuTorch's methods write into memory of their own: one at a time
        in_parallel = runner.runtime != "executorch"
        return _run(runner.run, self.inputs, description, in_parallel=in_parallel), []

    def _explain_inexact(
        self, path: Path, runner: Runner, logits: Logits | None, failures: list[str]
    ) -> str:
        """Where the contract is broken, add what can be found out; return the first odd layer."""
        expected = self.ladder.logits("integers")
        if logits is None or expected is None or np.array_equal(logits, expected):
            return ""
        few = self.inputs[:LAYER_IMAGES]
        if self.inputs.shape[1] == 3 and logits.shape == expected.shape:
            swapped = runner.run({INPUT_NAME: channels_reversed(few)})[OUTPUT_NAME]
            if np.array_equal(swapped, expected[: len(few)]):
                failures.append("Given the images with reversed channels it agrees: it takes BGR.")
        if path.suffix != ".onnx":
            return ""
        layer, text = self._odd_layer(path, optimize=True)
        failures += [text] if text else []
        return layer

    def _odd_layer(self, path: Path, *, optimize: bool) -> tuple[str, str]:
        """Return the first layer of an `.onnx` that computes something else, and a sentence."""
        assert self.reference is not None
        exact = optimize and self.reference.exact
        limit = -1.0 if exact else self.limits.max_half_way
        try:
            with step(f"Comparing the layers of {path.name}"):
                layers = layer_codes(path, self.reference, self.inputs, limit, optimize=optimize)
        except (ArtifactError, RuntimeFailedError) as error:
            return "", error.message
        bad = next((layer.name for layer in layers if layer.unexplained), "")
        return bad, explain(layers)


def _compared(path: Path, runner: Runner) -> Compared:
    return Compared(
        file=path.name,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        runtime=f"{runner.runtime} {runner.version}",
    )


def _run(
    run: Callable[[Mapping[str, Images]], Mapping[str, Logits]],
    inputs: Images,
    description: str,
    *,
    in_parallel: bool = True,
) -> Logits:
    """Run a network on all inputs, a few at a time; return (N, classes).

    Args:
        run: Must bear being called from several threads, unless `in_parallel` is False.
        inputs: (N, C, H, W).
        description: For the progress.
        in_parallel: Several batches at a time, each on one thread: faster than one on several, and
            the same bits on any machine.
    """
    batches = in_batches(inputs)

    def logits(batch: Images) -> Logits:
        return run({INPUT_NAME: batch})[OUTPUT_NAME]

    answers = parallel_map(logits, batches) if in_parallel else map(logits, batches)
    return np.concatenate(list(track(answers, description, len(batches))))
