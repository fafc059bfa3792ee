"""Which layers should compute in float, before it is known which those are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from mobiledeploy.errors import GateError, UsageError
from mobiledeploy.quantization.float_layers import float_ops, layer_name
from mobiledeploy.quantization.plan import round_parameters
from mobiledeploy.quantization.sensitivity import noisiest_first, sqnrs_db
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mobiledeploy.network import CalibrationSet, QuantRecipe
    from mobiledeploy.quantization.fake_quantize import Rounded
    from mobiledeploy.quantization.plan import Plan

    Images = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedPrecision:
    """One of: these layers, so many, or as few as reach an SQNR.

    Attributes:
        names: Of layers.
        count: The noisiest.
        min_sqnr_db: Of the logits against float, on some images of the calibration.
    """

    names: tuple[str, ...] = ()
    count: int = 0
    min_sqnr_db: float | None = None

    @classmethod
    def parse(cls, keep_float: str | None, min_sqnr_db: float | None) -> MixedPrecision | None:
        """Return what `--keep-float` and `--min-sqnr` ask for; None where they were not given.

        Raises:
            UsageError: both were given, or a count below one.
        """
        if keep_float is None:
            return None if min_sqnr_db is None else cls(min_sqnr_db=min_sqnr_db)
        if min_sqnr_db is not None:
            raise UsageError(
                "--keep-float says which layers are float, --min-sqnr asks for them to be chosen.",
                remedy="Give one of the two.",
            )
        if not keep_float.strip().lstrip("-").isdigit():
            names = tuple(name.strip() for name in keep_float.split(",") if name.strip())
            if names:
                return cls(names=names)
        elif int(keep_float) >= 1:
            return cls(count=int(keep_float))
        raise UsageError(
            f"--keep-float is {keep_float!r}; expected how many layers, or their names.",
            remedy="For example: --keep-float 2, or --keep-float features.0.0,classifier.1",
        )


_MEASURED_ON = 32  # images, evenly spread over those of the calibration
_MARGIN_DB = 0.1  # by which the simulation may be better than the integers


def choose_float_layers(
    planned: Plan, recipe: QuantRecipe, calibration: CalibrationSet, demand: MixedPrecision
) -> tuple[str, ...]:
    """Return the names of the layers that a demand asks for, in the network's order.

    Raises:
        UsageError: more layers are demanded than there are.
        GateError: no choice reaches the SQNR.
    """
    order = [layer_name(op) for op in planned.ops if op.has_weight]
    if demand.count >= len(order):
        raise UsageError(
            f"{demand.count} layers cannot be kept in float: the network has {len(order)}, and one"
            " has to be int8.",
            remedy="Keep fewer, or export without --int8.",
        )
    if demand.names:
        return tuple(sorted(set(demand.names), key=lambda n: order.index(n) if n in order else -1))
    chooser = _Chooser(planned, recipe, calibration)
    if demand.min_sqnr_db is None:
        chosen: Sequence[str] = chooser.ranked()[: demand.count]
    else:
        chosen = chooser.reaching(demand.min_sqnr_db)
    return tuple(sorted(chosen, key=order.index))


class _Chooser:
    """Rounds the network that is all int8, and each layer alone: once, where it is asked for."""

    def __init__(self, planned: Plan, recipe: QuantRecipe, calibration: CalibrationSet) -> None:
        self._planned = planned
        self._recipe = recipe
        self._all = calibration.images
        self._some = calibration.spread(_MEASURED_ON).images

    @cached_property
    def _rounded(self) -> dict[str, Rounded]:
        return round_parameters(self._planned, self._recipe, self._all)

    @cached_property
    def _alone(self) -> dict[str, Rounded]:
        return round_parameters(self._planned, self._recipe, self._all, alone=True)

    def ranked(self) -> list[str]:
        return noisiest_first(self._planned, self._alone, self._some)

    def reaching(self, demanded_db: float) -> list[str]:
        """Return as few layers as reach an SQNR, with a margin."""
        aim = demanded_db + _MARGIN_DB
        if self._sqnr_db([], self._rounded) >= aim:
            return []
        ranked = self.ranked()
        with step(f"Choosing layers for {demanded_db:.1f} dB"):
            chosen = self._fewest(ranked, aim, demanded_db)
        left = [name for name in ranked if name not in chosen]
        while True:
            floating = float_ops(self._planned.ops, chosen)
            anew = round_parameters(self._planned, self._recipe, self._all, floating)
            rounded = self._rounded | anew
            if self._sqnr_db(chosen, rounded) >= aim:
                return chosen
            if len(left) == 1:
                self._refuse(demanded_db, chosen, rounded)
            chosen = [*chosen, left.pop(0)]

    def _fewest(self, ranked: Sequence[str], aim: float, demanded_db: float) -> list[str]:
        """Return the first layers that reach the aim, without those that are not needed."""
        too_few, enough = 0, len(ranked) - 1  # one has to be int8
        if self._sqnr_db(ranked[:enough], self._alone) < aim:
            self._refuse(demanded_db, ranked[:enough], self._alone)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self._sqnr_db(ranked[:middle], self._alone) < aim:
                too_few = middle
            else:
                enough = middle
        chosen = list(ranked[:enough])
        for name in ranked[: enough - 1][::-1]:
            fewer = [other for other in chosen if other != name]
            if self._sqnr_db(fewer, self._alone) >= aim:
                chosen = fewer
        return chosen

    def _sqnr_db(self, kept: Sequence[str], rounded: Mapping[str, Rounded]) -> float:
        floating = float_ops(self._planned.ops, kept)
        (found,) = sqnrs_db(self._planned, rounded, self._some, [floating])
        return found

    def _refuse(
        self, demanded_db: float, kept: Sequence[str], rounded: Mapping[str, Rounded]
    ) -> None:
        raise GateError(
            f"Even with {len(kept)} layers in float the logits reach"
            f" {self._sqnr_db(kept, rounded):.1f} dB; expected {demanded_db:.1f} dB.",
            remedy="Ask for less, or export without --int8.",
        )
