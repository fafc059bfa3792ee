"""The ladder from the float network to the phone, rung by rung: which step lost how much?

    float ─▶ fold ─▶ equalize ─▶ integers ─▶ onnx-as-written ─▶ onnx ─▶ pte ─▶ device

In: the logits of each network on the same images, from below upwards. Out: `Rung`s. Each is held
against the one below, which says what this step did; against what the contract demands, where that
is another; and against float, which says what is left.

- *fold*, and *equalize* on the images that it was made with: the same function, but for rounding.
- *integers*: what int8 has cost. A figure that is good enough or is not.
- *onnx-as-written*: float arithmetic around the same codes. Not exact: judged layer by layer
  (`codes`), its logits are shown only.
- *onnx*, *pte*, *device*: the integers, in every bit of every logit.

Invariant: logits that are not finite, of another shape or of no image fail their rung; nothing is
ever equal for want of something to compare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy import metrics
from mobiledeploy.errors import DataError, GateError
from mobiledeploy.parity.compare import figures, shortfalls
from mobiledeploy.parity.types import Comparison, Rung

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from mobiledeploy.parity.types import ParityReport, RungName

    Logits = NDArray[np.float32]

TITLES: Mapping[RungName, str] = {
    "float": "float PyTorch",
    "fold": "BatchNorm folded",
    "equalize": "equalized",
    "integers": "integer reference",
    "onnx-as-written": "ONNX as written",
    "onnx": "ONNX Runtime",
    "pte": "ExecuTorch",
    "device": "device",
}
EXACT: Mapping[str, float] = {"max_differing_logits": 0.0}


@dataclass(frozen=True, slots=True)
class Check:
    """Against which rung, and what is demanded; without limits the figures are shown only."""

    rung: RungName
    limits: Mapping[str, float]
    artifact: str = ""


@dataclass(frozen=True, slots=True)
class CalibrationCheck:
    """A comparison on other images than the ladder's: those of the calibration."""

    rung: RungName
    reference: Logits
    candidate: Logits
    limits: Mapping[str, float]


class Ladder:
    """Collects rungs, from float upwards.

    Args:
        labels: Class index per image, where known.
        step: What one code of the logits is worth; None for a float network.
    """

    def __init__(self, *, labels: Sequence[int] | None, step: float | None) -> None:
        self._labels = labels
        self._step = step
        self._logits: dict[tuple[RungName, str], Logits] = {}
        self.rungs: list[Rung] = []

    def add(
        self,
        name: RungName,
        logits: Logits | None,
        held: Sequence[Check] = (),
        *,
        artifact: str = "",
        elsewhere: CalibrationCheck | None = None,
        failures: Sequence[str] = (),
        first_layer: str = "",
        note: str = "",
        seconds: float = 0.0,
    ) -> None:
        """Add the next rung.

        Args:
            name: Of the rung.
            logits: (N, classes); None where it could not be run, which `failures` explains.
            held: Against which rungs, and with which limits; those not on the ladder are left out,
                unless something is demanded there.
            artifact: The file that was run.
            elsewhere: A comparison on images of the calibration.
            failures: What failed apart from the comparisons.
            first_layer: The first layer that differs.
            note: Why the figures are not judged; limits are then not applied.
            seconds: That running took.
        """
        said = list(failures)
        comparisons: list[Comparison] = []
        accuracy = None
        if logits is not None and (trouble := _trouble(logits)):
            said.append(trouble)
        elif logits is not None:
            self._logits[name, artifact] = logits
            accuracy = self._accuracy(logits)
            comparisons = [self._compared(logits, h, note) for h in held if self._wanted(h)]
        if elsewhere is not None:
            comparisons.append(self._compared_elsewhere(elsewhere))
        self.rungs.append(
            Rung(
                name=name,
                title=TITLES[name],
                artifact=artifact,
                comparisons=tuple(comparisons),
                failures=tuple(said),
                first_layer=first_layer,
                note=note,
                accuracy=accuracy,
                seconds=seconds,
            )
        )

    def logits(self, name: RungName, artifact: str = "") -> Logits | None:
        """Return a rung's logits; None where it is not on the ladder or has no finite ones."""
        return self._logits.get((name, artifact))

    def _wanted(self, held: Check) -> bool:
        """Return whether a comparison can be made, or its absence has to be told."""
        return bool(held.limits) or (held.rung, held.artifact) in self._logits

    def _compared(self, logits: Logits, held: Check, note: str) -> Comparison:
        reference = self.logits(held.rung, held.artifact)
        if reference is None:
            missing = f"{TITLES[held.rung]} has no logits to compare with."
            return Comparison(reference=held.rung, metrics={}, limits={}, failures=(missing,))
        limits = {} if note else dict(held.limits)
        return _comparison(held.rung, reference, logits, limits, self._step)

    def _compared_elsewhere(self, other: CalibrationCheck) -> Comparison:
        found = _comparison(
            other.rung, other.reference, other.candidate, dict(other.limits), self._step
        )
        return Comparison(
            reference=found.reference,
            images="calibration",
            metrics=found.metrics,
            limits=found.limits,
            failures=tuple(f"On images of the calibration: {text}" for text in found.failures),
        )

    def _accuracy(self, logits: Logits) -> float | None:
        return None if self._labels is None else metrics.top1_accuracy(logits, self._labels)


def require(report: ParityReport) -> None:
    """Raise unless the report passed.

    Raises:
        GateError: nothing was compared, a rung failed, or a figure is worse than in the baseline;
            the message begins with the lowest rung.
    """
    if report.passed:
        return
    failed = [rung for rung in report.rungs if not rung.passed]
    said = [f"{label(rung)}: {text}" for rung in failed for text in rung.all_failures]
    where = f" at the rung {failed[0].name!r}" if failed else ""
    if report.regressions:
        said += ["Worse than the baseline.", *report.regressions]
    raise GateError(
        f"Parity failed{where}. " + (" ".join(said) or "Nothing was compared."),
        remedy="Find the change that did it, or store a new baseline."
        if report.regressions and not failed
        else "`mobiledeploy parity ARTIFACT --layers --html report.html` shows where to look.",
    )


def label(rung: Rung) -> str:
    """Return what a rung is called where several artifacts are on the ladder."""
    return f"{rung.title}, {rung.artifact}" if rung.artifact else rung.title


def _trouble(logits: Logits) -> str:
    """Return why logits cannot be compared with anything; empty where they can."""
    if logits.size == 0:
        return f"Nothing was compared: logits of shape {logits.shape}."
    bad = int(np.count_nonzero(~np.isfinite(logits)))
    return f"{bad} of {logits.size} logits are NaN or infinite." if bad else ""


def _comparison(
    rung: RungName,
    reference: Logits,
    candidate: Logits,
    limits: dict[str, float],
    step: float | None,
) -> Comparison:
    try:
        found = figures(reference, candidate, step)
    except (GateError, DataError) as error:
        return Comparison(reference=rung, metrics={}, limits=limits, failures=(error.message,))
    if limits == EXACT:
        failures = _inexact(rung, found)
    else:
        failures = tuple(f"Against {TITLES[rung]}: {text}" for text in shortfalls(found, limits))
    return Comparison(reference=rung, metrics=found, limits=limits, failures=failures)


def _inexact(rung: RungName, found: dict[str, float]) -> tuple[str, ...]:
    """Return a sentence about logits that differ where none may."""
    if found["differing_logits"] == 0:
        return ()
    apart = f" by up to {found['max_steps_apart']:.0f} steps" if "max_steps_apart" in found else ""
    count = f"{found['differing_logits']:.0f} of {found['logits']:.0f}"
    return (f"{count} logits differ from {TITLES[rung]}{apart}; expected none.",)
