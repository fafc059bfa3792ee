"""Does the artifact compute what the network computes? Two questions, two tolerances.

*Format parity*: the int8 network is defined by integers, so its encodings must agree with it, and
with one another, in every bit of every logit. One logit that differs is a bug. For a float
artifact the question is whether the runtime's float rounding is all that separates the two.

*Quantization loss*: what int8 has cost against float. Here there is no equality, only a figure
that is good enough or is not.

In: logits of the same images, by name. Out: a `ParityReport`. Comparing nothing fails.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledeploy.errors import GateError
from mobiledeploy.types import ParityReport, Rung
from mobiledeploy.verify import metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """What passes.

    The defaults are loose on purpose: they catch a broken network on a few images; tighter gates
    belong on images of one's own.

    Attributes:
        min_sqnr_db: Quantization loss: at least this much signal to noise.
        min_agreement: Quantization loss: at least this share of images with the same top class.
        min_float_sqnr_db: Format parity of a float artifact.
    """

    min_sqnr_db: float = 12.0
    min_agreement: float = 0.85
    min_float_sqnr_db: float = 60.0


def compare(
    float_logits: Logits,
    integer_logits: Logits | None,
    artifacts: Mapping[str, Logits],
    *,
    step: float,
    tolerances: Tolerances,
    data_source: str,
    ungated: str = "",
) -> ParityReport:
    """Hold every artifact against the network, against the others, and against float.

    Args:
        float_logits: Of the float network, (N, classes).
        integer_logits: Of the integer reference; None where the artifacts are float.
        artifacts: Logits by artifact name.
        tolerances: What passes.
        step: The logits' quantization step; ignored where the artifacts are float.
        data_source: What the images were, for the report.
        ungated: Why quantization loss is shown but not judged; empty where it is.

    Raises:
        GateError: a runtime's logits are not finite.
    """
    rungs: list[Rung] = []
    for name, logits in artifacts.items():
        if integer_logits is None:
            rungs.append(_float_format_rung(name, float_logits, logits, tolerances))
        else:
            rungs.append(_exact_rung("integer reference", name, integer_logits, logits, step))
    if integer_logits is not None:
        rungs += [
            _exact_rung(one, other, artifacts[one], artifacts[other], step)
            for one, other in itertools.combinations(artifacts, 2)
        ]
        rungs += [
            _loss_rung(name, float_logits, logits, tolerances, ungated)
            for name, logits in artifacts.items()
        ]
    return ParityReport(rungs=tuple(rungs), sample_count=len(float_logits), data_source=data_source)


def require(report: ParityReport) -> None:
    """Raise unless the report passed.

    Raises:
        GateError: nothing was compared, or a rung failed; the message names each.
    """
    if report.passed:
        return
    failures = [f"{r.candidate}: {failure}" for r in report.rungs for failure in r.failures]
    raise GateError(
        "Parity failed. " + (" ".join(failures) or "Nothing was compared."),
        remedy="`mobiledeploy parity ARTIFACT --data DIR` shows the figures on images of yours.",
    )


def _exact_rung(
    reference_name: str, name: str, reference: Logits, candidate: Logits, step: float
) -> Rung:
    """Compare two encodings of one int8 network: zero logits may differ."""
    differing = metrics.differing_logits(reference, candidate)
    steps = metrics.max_steps_apart(reference, candidate, step)
    difference = (
        f"{differing} of {reference.size} logits differ from the {reference_name}, by up to"
        f" {steps:.0f} steps; expected none."
    )
    return Rung(
        reference=reference_name,
        candidate=name,
        kind="format",
        sample_count=len(reference),
        metrics={"differing_logits": differing, "logits": reference.size, "max_steps_apart": steps},
        tolerances={"max_differing_logits": 0},
        failures=(difference,) if differing else (),
    )


def _float_format_rung(
    name: str, reference: Logits, candidate: Logits, tolerances: Tolerances
) -> Rung:
    """Compare a float artifact with the float network: only rounding may separate them."""
    figures = _figures(reference, candidate)
    limits = {"min_sqnr_db": tolerances.min_float_sqnr_db}
    return _judged("float PyTorch", name, "format", reference, figures, limits)


def _loss_rung(
    name: str, reference: Logits, candidate: Logits, tolerances: Tolerances, ungated: str
) -> Rung:
    """Measure what quantization cost."""
    limits = {"min_sqnr_db": tolerances.min_sqnr_db, "min_agreement": tolerances.min_agreement}
    figures = _figures(reference, candidate)
    return _judged("float PyTorch", name, "quantization", reference, figures, limits, ungated)


def _figures(reference: Logits, candidate: Logits) -> dict[str, float]:
    return {
        "sqnr_db": metrics.sqnr_db(reference, candidate),
        "agreement": metrics.top1_agreement(reference, candidate),
    }


def _judged(
    reference_name: str,
    name: str,
    kind: str,
    reference: Logits,
    figures: Mapping[str, float],
    limits: Mapping[str, float],
    ungated: str = "",
) -> Rung:
    """Return the rung, with a failure for every figure below its `min_` limit."""
    failures = [
        f"{figure} against {reference_name} is {figures[figure]:.3f}; expected at least {limit}."
        for figure, limit in ((key.removeprefix("min_"), value) for key, value in limits.items())
        if not figures[figure] >= limit
    ]
    return Rung(
        reference=reference_name,
        candidate=name,
        kind="quantization" if kind == "quantization" else "format",
        sample_count=len(reference),
        metrics=figures,
        tolerances=limits,
        failures=() if ungated else tuple(failures),
        gated=not ungated,
        note=ungated,
    )
