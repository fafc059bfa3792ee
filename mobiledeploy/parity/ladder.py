"""The parity ladder: rungs from the float network to the device, each compared with those below.

    float ─▶ fold ─▶ equalize ─▶ integers ─▶ any-rounding
          ─▶ onnx-unoptimized ─▶ onnx ─▶ pte ─▶ tflite ─▶ device

Input: the logits of each stage on the same images, from float upwards. Output: `Rung`s. A rung is
compared with the rung below (what did this step change?), with the rung that it must equal or stay
close to, and with float (what is left in total?). The lowest rung that fails is where to look.

- fold; equalize on the images that it was computed from: the same function, so only float rounding
  may differ.
- integers: the integer reference. Its loss against float is the cost of int8; it has to stay within
  limits.
- any-rounding: the same network in other rounding modes, and in float around the codes. No result
  lies near half-way between two codes (`quantization.tie_free`), so nothing may differ.
- onnx-unoptimized: ONNX Runtime without graph optimizations computes in float around the codes. It
  is also checked layer by layer (`layer_codes`), which finds faults that change no logit.
- onnx, pte, tflite, device: must equal the integer reference in every bit of every logit.

Behind an output with an activation (softmax, sigmoid, L2 normalisation), which is float, artifacts
must be within 0.000002 of the activation of the reference's output.

A network with layers in float (`--keep-float`) has no rung any-rounding, and its artifacts have to
stay close instead of equal.

NaN or infinite logits, another shape and an empty set of images fail their rung. Comparing nothing
never passes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy import metrics
from mobiledeploy.errors import DataError, GateError
from mobiledeploy.parity.compare import (
    classes_of_map,
    compare_logits,
    compare_outputs,
    compare_together,
    missed_limits,
)
from mobiledeploy.parity.types import Comparison, Rung
from mobiledeploy.utils.outputs import activated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mobiledeploy.network import OutputSpec
    from mobiledeploy.parity.types import Metrics, ParityReport, RungName

    Logits = NDArray[np.float32]

TITLES: Mapping[RungName, str] = {
    "float": "float PyTorch",
    "fold": "BatchNorm folded",
    "equalize": "equalized",
    "integers": "integer reference",
    "any-rounding": "any rounding",
    "onnx-unoptimized": "ONNX Runtime, unoptimized",
    "onnx": "ONNX Runtime",
    "pte": "ExecuTorch",
    "tflite": "LiteRT",
    "device": "device",
}
EXACT: Mapping[str, float] = {"max_differing_logits": 0.0}
# Softmax, sigmoid and L2 normalisation behind the network are float: runtimes differ in the last
# bits.
ACTIVATED: Mapping[str, float] = {"max_max_abs_difference": 2e-6}


@dataclass(frozen=True, slots=True)
class Check:
    """A comparison to make with another rung of the ladder.

    Attributes:
        rung: The rung to compare with.
        limits: What the metrics have to reach; without limits they are shown for information.
        artifact: The file of that rung, where several artifacts have one.
    """

    rung: RungName
    limits: Mapping[str, float] = field(default_factory=dict)
    artifact: str = ""


@dataclass(frozen=True, slots=True)
class CalibrationCheck:
    """A comparison on calibration images instead of the ladder's images.

    Attributes:
        rung: The rung that `reference` comes from.
        reference: (N, classes).
        candidate: (N, classes).
        limits: What the metrics have to reach.
    """

    rung: RungName
    reference: Logits
    candidate: Logits
    limits: Mapping[str, float]


class Ladder:
    """Collects rungs, from float upwards.

    Args:
        labels: Class index of each image; None where unknown.
        step: Scale of the int8 logits; None for a float network.
        outputs: The outputs; by default one of classes.

    Attributes:
        rungs: The rungs so far.
    """

    def __init__(
        self,
        *,
        labels: Sequence[int] | None,
        step: float | None,
        outputs: Sequence[OutputSpec] = (),
    ) -> None:
        self._labels = labels
        self._step = step
        self._outputs = tuple(outputs)
        self._logits: dict[tuple[RungName, str], Logits] = {}
        self.rungs: list[Rung] = []

    def add(
        self,
        name: RungName,
        logits: Logits | None,
        checks: Sequence[Check] = (),
        *,
        artifact: str = "",
        calibration_check: CalibrationCheck | None = None,
        failures: Sequence[str] = (),
        first_differing_layer: str = "",
        note: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Add the next rung.

        Args:
            name: Name of the rung.
            logits: (N, classes); None if it could not run, which `failures` explains.
            checks: The comparisons to make. One with a rung that is not on the ladder is skipped if
                it has no limits, and fails if it has.
            artifact: Name of the file that was run.
            calibration_check: A comparison on calibration images.
            failures: What failed besides the comparisons, one sentence each.
            first_differing_layer: The first layer that differs from the integer reference.
            note: Why the limits of `checks` do not apply; empty if they do.
            seconds: Time that the run took.
        """
        failures = list(failures)
        comparisons: list[Comparison] = []
        accuracy = None
        if logits is not None and (problem := _problem(logits)):
            failures.append(problem)
        elif logits is not None:
            self._logits[name, artifact] = logits
            accuracy = self._accuracy(logits)
            comparisons = [
                self._compare(logits, check, note, is_artifact=bool(artifact))
                for check in checks
                if self._is_wanted(check)
            ]
        if calibration_check is not None:
            comparisons.append(self._compare_on_calibration(calibration_check))
        failures += [text for comparison in comparisons for text in comparison.failures]
        self.rungs.append(
            Rung(
                name=name,
                title=TITLES[name],
                artifact=artifact,
                comparisons=tuple(comparisons),
                failures=tuple(failures),
                first_differing_layer=first_differing_layer,
                note=note,
                accuracy=accuracy,
                seconds=seconds,
            )
        )

    def logits(self, name: RungName, artifact: str = "") -> Logits | None:
        """Return a rung's logits; None if it is not on the ladder or has no finite logits."""
        return self._logits.get((name, artifact))

    def _is_wanted(self, check: Check) -> bool:
        """Return whether a comparison can be made, or must fail because it cannot."""
        return bool(check.limits) or (check.rung, check.artifact) in self._logits

    def _compare(self, logits: Logits, check: Check, note: str, *, is_artifact: bool) -> Comparison:
        reference = self.logits(check.rung, check.artifact)
        if reference is not None and is_artifact and not check.artifact:
            reference = activated(reference, self._outputs)
        if reference is None:
            missing = f"{TITLES[check.rung]} has no logits to compare with."
            return Comparison(reference=check.rung, metrics={}, limits={}, failures=(missing,))
        limits = {} if note else check.limits
        return self._comparison(check.rung, reference, logits, limits)

    def _compare_on_calibration(self, check: CalibrationCheck) -> Comparison:
        found = self._comparison(check.rung, check.reference, check.candidate, check.limits)
        failures = tuple(f"On calibration images: {text}" for text in found.failures)
        return found.model_copy(update={"images": "calibration", "failures": failures})

    def _comparison(
        self,
        rung: RungName,
        reference: Logits,
        candidate: Logits,
        limits: Mapping[str, float],
    ) -> Comparison:
        try:
            if len(self._outputs) > 1:
                return self._comparison_of_outputs(rung, reference, candidate, limits)
            task = self._outputs[0].task if self._outputs else "classes"
            classes = classes_of_map(self._outputs[0]) if self._outputs else 1
            found = compare_logits(reference, candidate, self._step, task, classes_of_map=classes)
        except (GateError, DataError) as error:
            return Comparison(reference=rung, metrics={}, limits=limits, failures=(error.message,))
        if limits == EXACT:
            failures = _differences(rung, found)
        else:
            missed = missed_limits(found, limits)
            failures = tuple(f"Against {TITLES[rung]}: {text}" for text in missed)
        return Comparison(reference=rung, metrics=found, limits=limits, failures=failures)

    def _comparison_of_outputs(
        self,
        rung: RungName,
        reference: Logits,
        candidate: Logits,
        limits: Mapping[str, float],
    ) -> Comparison:
        exact = limits == EXACT
        outputs = compare_outputs(reference, candidate, self._outputs, {} if exact else limits)
        if limits == ACTIVATED:  # outputs without an activation are still exact
            outputs = tuple(
                each.model_copy(update={"limits": EXACT}) if output.is_exact else each
                for each, output in zip(outputs, self._outputs, strict=True)
            )
        found = compare_together(reference, candidate, outputs)
        failures = _differences(rung, found) if exact else ()
        for each in outputs:
            missed = missed_limits(each.metrics, each.limits)
            failures += tuple(f"Against {TITLES[rung]}, {each.name}: {text}" for text in missed)
        return Comparison(
            reference=rung, metrics=found, limits=limits, failures=failures, outputs=outputs
        )

    def _accuracy(self, logits: Logits) -> float | None:
        """Return the accuracy of the first output; None without labels."""
        if self._labels is None:
            return None
        size = self._outputs[0].size if self._outputs else logits.shape[1]
        return metrics.top1_accuracy(logits[:, :size], self._labels)


def require_passed(report: ParityReport) -> None:
    """Raise unless the report passed.

    Raises:
        GateError: nothing was compared, a rung failed, or a metric is worse than in the baseline;
            the message begins with the lowest rung that failed.
    """
    if report.passed:
        return
    failed = [rung for rung in report.rungs if not rung.passed]
    reasons = [f"{_label(rung)}: {text}" for rung in failed for text in rung.failures]
    where = f" at the rung {failed[0].name!r}" if failed else ""
    if report.regressions:
        reasons += ["Worse than the baseline.", *report.regressions]
    remedy = "`mobiledeploy parity ARTIFACT --layers --html report.html` shows where to look."
    if report.regressions and not failed:
        remedy = "Find the change that caused it, or store a new baseline."
    elif any(_misses_agreement(each) for rung in failed for each in rung.comparisons):
        remedy += " If the outputs are no classes, export with --task regression or embedding."
    raise GateError(
        f"Parity failed{where}. " + (" ".join(reasons) or "Nothing was compared."), remedy=remedy
    )


def _misses_agreement(comparison: Comparison) -> bool:
    limit = comparison.limits.get("min_top1_agreement")
    return limit is not None and comparison.metrics.get("top1_agreement", limit) < limit


def _label(rung: Rung) -> str:
    return f"{rung.title}, {rung.artifact}" if rung.artifact else rung.title


def _problem(logits: Logits) -> str:
    """Return why logits cannot be compared with anything; empty if they can."""
    if logits.size == 0:
        return f"Nothing was compared: logits of shape {logits.shape}."
    bad = int(np.count_nonzero(~np.isfinite(logits)))
    return f"{bad} of {logits.size} logits are NaN or infinite." if bad else ""


def _differences(rung: RungName, found: Metrics) -> tuple[str, ...]:
    """Return a sentence if logits differ that have to be equal."""
    if found["differing_logits"] == 0:
        return ()
    apart = f" by up to {found['max_steps_apart']:.0f} steps" if "max_steps_apart" in found else ""
    count = f"{found['differing_logits']:.0f} of {found['logits']:.0f}"
    return (f"{count} logits differ from {TITLES[rung]}{apart}; expected none.",)
