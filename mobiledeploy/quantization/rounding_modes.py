"""How runtimes round, and whether an int8 network's codes depend on it.

Input: what an `IntegerReference` rounded on some images. Output: the codes that another rounding
mode gives. Every layer gets the reference's own inputs; if no layer differs, no mode changes a
logit.
Sources: ONNX Runtime's and XNNPACK's kernels round half to even in float32, ONNX Runtime's on ARM64
in fixed point; XNNPACK's `rndnu` and TFLite with single rounding multiply by 31 bits and round
half up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from mobiledeploy.quantization.integer_operators import Scaled, unrounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

    from mobiledeploy.quantization.integer_reference import Rounding

    Mode = Callable[[Scaled | torch.Tensor, torch.Tensor], torch.Tensor]

_BITS = 31

# Every mode computes the number of steps to within a few units of float32's last place: 2**-13 for
# numbers up to 512. Further from half-way than this, no mode can round to another code. Numbers
# beyond 512 are clamped to the same code in every mode.
_UNDECIDED = 2.0**-10


@dataclass(frozen=True, slots=True)
class RoundingDifference:
    """Codes of one layer that another rounding mode changes.

    Attributes:
        quantize: Name of the `quantize` node.
        mode: The rounding mode, a key of `MODES`.
        differing: Number of codes that differ.
        codes: Number of codes.
    """

    quantize: str
    mode: str
    differing: int
    codes: int


def rounding_differences(roundings: Iterable[Rounding]) -> list[RoundingDifference]:
    """Return the layers and modes whose codes are not the reference's, in the graph's order."""
    found = []
    for rounding in roundings:
        low, high = -128 - rounding.zero_point, 127 - rounding.zero_point
        step = rounding.result.scale
        chosen = _undecided(rounding)
        value = _chosen(rounding.value, chosen)
        expected = rounding.result.values[chosen].double()
        for name, mode in MODES.items():
            differing = int(torch.count_nonzero(mode(value, step).clamp(low, high) != expected))
            if differing:
                codes = rounding.result.values.numel()
                found.append(RoundingDifference(rounding.name, name, differing, codes))
    return found


def _undecided(rounding: Rounding) -> tuple[torch.Tensor, ...]:
    """Return the indices, per dimension, of the numbers near half-way, where modes may differ."""
    steps = unrounded(rounding.value, rounding.result.scale)
    # as far from the chosen code as from the next one; clamped numbers are farther away
    near = steps.sub_(rounding.result.values).abs_().sub_(0.5).abs_() < _UNDECIDED
    return _indices_of_true(near.numpy())


def _indices_of_true(mask: NDArray[np.bool_]) -> tuple[torch.Tensor, ...]:
    """Return what `np.nonzero` does, in the order of memory, where it is ten times as fast."""
    in_memory = sorted(range(mask.ndim), key=lambda axis: -mask.strides[axis])
    ordered = mask.transpose(in_memory)
    along = np.unravel_index(np.flatnonzero(ordered), ordered.shape)
    return tuple(torch.from_numpy(along[in_memory.index(axis)]) for axis in range(mask.ndim))


def _chosen(value: Scaled | torch.Tensor, at: tuple[torch.Tensor, ...]) -> Scaled | torch.Tensor:
    """Return some of the values, in one dimension."""
    if not isinstance(value, Scaled):
        return value[at]
    scale = value.scale.expand_as(value.values)[at] if value.scale.numel() > 1 else value.scale
    return Scaled(value.values[at], scale)


def half_away_from_zero(value: Scaled | torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Round half away from zero, as C's `round` does."""
    steps = unrounded(value, step).double()
    return (steps.abs() + 0.5).floor().copysign(steps)


def half_up(value: Scaled | torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Round half towards positive infinity, floor(x + 1/2)."""
    return (unrounded(value, step).double() + 0.5).floor()


def by_reciprocal(value: Scaled | torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Multiply dequantized numbers by 1 / step in float32, where the reference divides."""
    real = value.real if isinstance(value, Scaled) else value
    return (real * step.reciprocal()).double().round()


def fixed_point(value: Scaled | torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Multiply integers by a 31-bit mantissa and a power of two; round once, half up.

    Real numbers have no fixed-point form; they are rounded as in the reference.
    """
    if not isinstance(value, Scaled):
        return unrounded(value, step).double().round()
    mantissa, exponent = torch.frexp(value.scale.double() / step.double())
    multiplier = (mantissa * 2.0**_BITS).round().long()
    shift = _BITS - exponent.long()
    products = value.values.long() * multiplier
    return ((products + (torch.ones_like(shift) << (shift - 1))) >> shift).double()


MODES: Mapping[str, Mode] = {
    "half away from zero": half_away_from_zero,
    "half up": half_up,
    "reciprocal of the scale": by_reciprocal,
    "31-bit fixed point": fixed_point,
}
"""The modes other than the reference's own, which is half to even in float32."""
