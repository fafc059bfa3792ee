"""Mixed precision: choose which layers compute in float.

Input: a `Plan`, a recipe, calibration images and a `MixedPrecision` request: given layers, a number
of layers, or a least SQNR. Output: the names of the layers to keep in float.
Maths: layers are ranked by the SQNR of the logits with that layer alone in int8, the noisiest
first. For a least SQNR, a bisection finds how many of the first suffice; of these, each that proves
unnecessary returns to int8; and since layers were measured alone, the result is rounded and
measured again, and layers are added until it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from mobiledeploy.errors import GateError, UsageError
from mobiledeploy.quantization.round_layers import round_layers
from mobiledeploy.quantization.sensitivity import measure_sqnr, rank_by_noise
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.quantization.fake_quantize import LayerWeights
    from mobiledeploy.quantization.plan import Plan
    from mobiledeploy.stages import CalibrationSet, QuantRecipe

_MEASURED_IMAGES = 32
_MARGIN_DB = 0.1  # the fake-quantized network may be better than the integers by this much


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPrecision:
    """Which layers to keep in float; exactly one of the three is set.

    Attributes:
        names: These layers.
        count: This many layers, the noisiest.
        min_sqnr_db: As few layers as give the logits this SQNR in dB against float.
    """

    names: tuple[str, ...] = ()
    count: int = 0
    min_sqnr_db: float | None = None


def choose_float_layers(
    plan: Plan, recipe: QuantRecipe, calibration: CalibrationSet, request: MixedPrecision
) -> tuple[str, ...]:
    """Return the names of the layers to keep in float, in the network's order.

    Args:
        plan: The network with every layer in int8.
        recipe: How weights are rounded.
        calibration: Calibration images.
        request: Which layers to keep.

    Raises:
        UsageError: more layers are asked for than the network has.
        GateError: no choice reaches the least SQNR.
    """
    order = [op.layer for op in plan.layers]
    if request.count >= len(order):
        raise UsageError(
            f"{request.count} layers cannot be kept in float: the network has {len(order)}, and one"
            " has to be int8.",
            remedy="Keep fewer layers, or export without --int8.",
        )
    if request.names:
        # Unknown names come first; `require_layers` refuses them.
        return tuple(sorted(set(request.names), key=lambda n: order.index(n) if n in order else -1))
    chooser = _Chooser(plan, recipe, calibration)
    if request.min_sqnr_db is None:
        chosen: Sequence[str] = chooser.ranked()[: request.count]
    else:
        chosen = chooser.fewest_for(request.min_sqnr_db)
    return tuple(sorted(chosen, key=order.index))


class _Chooser:
    """Rounds the all-int8 network, and each layer alone, at most once each."""

    def __init__(self, plan: Plan, recipe: QuantRecipe, calibration: CalibrationSet) -> None:
        self._plan = plan
        self._recipe = recipe
        self._images = calibration.images
        self._measured_images = calibration.spread(_MEASURED_IMAGES).images

    @cached_property
    def _rounded(self) -> dict[str, LayerWeights]:
        return round_layers(self._plan, self._recipe, self._images)

    @cached_property
    def _rounded_alone(self) -> dict[str, LayerWeights]:
        return round_layers(self._plan, self._recipe, self._images, alone=True)

    def ranked(self) -> list[str]:
        """Return the names of all layers, the noisiest first."""
        return rank_by_noise(self._plan, self._rounded_alone, self._measured_images)

    def fewest_for(self, least_db: float) -> list[str]:
        """Return the fewest layers that reach an SQNR with a margin."""
        target = least_db + _MARGIN_DB
        if self._sqnr_db([], self._rounded) >= target:
            return []
        ranked = self.ranked()
        with step(f"Choosing layers for {least_db:.1f} dB"):
            chosen = self._fewest_measured_alone(ranked, target, least_db)
        left = [name for name in ranked if name not in chosen]
        while True:
            plan = self._plan.with_float_layers(chosen)
            rounded = self._rounded | round_layers(plan, self._recipe, self._images)
            if self._sqnr_db(chosen, rounded) >= target:
                return chosen
            if len(left) == 1:
                self._fail(least_db, chosen, rounded)
            chosen = [*chosen, left.pop(0)]

    def _fewest_measured_alone(
        self, ranked: Sequence[str], target: float, least_db: float
    ) -> list[str]:
        """Return the first layers of the ranking that reach a target, without unnecessary ones."""
        too_few, enough = 0, len(ranked) - 1  # one has to be int8
        if self._sqnr_db(ranked[:enough], self._rounded_alone) < target:
            self._fail(least_db, ranked[:enough], self._rounded_alone)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self._sqnr_db(ranked[:middle], self._rounded_alone) < target:
                too_few = middle
            else:
                enough = middle
        chosen = list(ranked[:enough])
        for name in ranked[: enough - 1][::-1]:
            fewer = [other for other in chosen if other != name]
            if self._sqnr_db(fewer, self._rounded_alone) >= target:
                chosen = fewer
        return chosen

    def _sqnr_db(self, kept: Sequence[str], rounded: Mapping[str, LayerWeights]) -> float:
        plan = self._plan.with_float_layers(kept)
        (found,) = measure_sqnr(plan, rounded, self._measured_images, [plan.float_ops])
        return found

    def _fail(
        self, least_db: float, kept: Sequence[str], rounded: Mapping[str, LayerWeights]
    ) -> NoReturn:
        raise GateError(
            f"Even with {len(kept)} layers in float the logits reach"
            f" {self._sqnr_db(kept, rounded):.1f} dB; expected {least_db:.1f} dB.",
            remedy="Ask for a lower SQNR, or export without --int8.",
        )
