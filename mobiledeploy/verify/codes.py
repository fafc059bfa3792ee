"""Layer by layer: are a runtime's codes those of the integer reference, and if not, may they be?

In: the codes of both, every layer computed from the same inputs. Out: per layer, how many differ
and how many of these no rounding explains.

A runtime that computes in integers has no excuse. One that computes the same layer in float rounds
sums that the reference has exactly; a code can then come out one higher or lower where the exact
number lies next to half-way, and nowhere else. Measured over all families the distance stays below
1e-4 steps; a weight that is one code off moves thousands of sums by a hundred times as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCodes:
    """One layer's codes, over all images that were looked at.

    Attributes:
        name: Of the layer, for people.
        codes: How many were compared.
        differing: How many differ.
        unexplained: How many differ by more than a rounding can explain.
        max_apart: The largest difference, in codes.
    """

    name: str
    codes: int
    differing: int
    unexplained: int
    max_apart: int

    def plus(self, other: LayerCodes) -> LayerCodes:
        """Return both batches together."""
        return LayerCodes(
            name=self.name,
            codes=self.codes + other.codes,
            differing=self.differing + other.differing,
            unexplained=self.unexplained + other.unexplained,
            max_apart=max(self.max_apart, other.max_apart),
        )


def compare_codes(
    name: str,
    expected: NDArray[np.int8],
    found: NDArray[np.int8],
    half_way: NDArray[np.float32],
    max_half_way: float,
) -> LayerCodes:
    """Compare one layer's codes.

    Args:
        name: Of the layer.
        expected: The integer reference's.
        found: The runtime's, in the same shape or one that holds the same numbers.
        half_way: How far from half-way the exact numbers lay, in steps (`reference.Codes`).
        max_half_way: Up to where a difference of one is rounding; below 0 nothing is.
    """
    if found.size != expected.size:
        everything = expected.size
        return LayerCodes(
            name=name,
            codes=everything,
            differing=everything,
            unexplained=everything,
            max_apart=255,
        )
    apart = np.abs(found.reshape(expected.shape).astype(np.int16) - expected)
    excused = (apart == 1) & (half_way.reshape(expected.shape) <= max_half_way)
    return LayerCodes(
        name=name,
        codes=expected.size,
        differing=int(np.count_nonzero(apart)),
        unexplained=int(np.count_nonzero((apart > 0) & ~excused)),
        max_apart=int(apart.max(initial=0)),
    )


def explain(layers: Sequence[LayerCodes]) -> str:
    """Return a sentence about the first layer with unexplained codes; empty where there is none."""
    bad = [layer for layer in layers if layer.unexplained]
    if not bad:
        return ""
    first = bad[0]
    return (
        f"The first layer that computes something else is {first.name}: {first.differing} of"
        f" {first.codes} codes differ, by up to {first.max_apart}, given the right inputs"
        f" ({len(bad)} of {len(layers)} layers do)."
    )
