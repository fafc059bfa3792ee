"""Are the images' channels in the order that the network was trained with?

Every rung is given the same images, so none of them can notice that all are BGR. The float network
can: when their channels are in its order it is right more often, and where the classes are not
known, its logits are larger. Whether that is chance is a sign test over the images.

Larger: by log sum exp, which tells images like those of the training from others (Liu et al.,
"Energy-based Out-of-distribution Detection" (2020), section 3); it is a better judge than the
largest probability, which is high for both.

In: float logits of the images as they are, and with their channels reversed. Out: what is wrong.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Logits = NDArray[np.float32]

_CHANCE = 1e-3


def reversed_channels(
    as_given: Logits, channels_reversed: Logits, labels: Sequence[int] | None
) -> str:
    """Return a sentence if the network clearly prefers the reversed channels; else an empty one.

    Args:
        as_given: (N, classes).
        channels_reversed: Likewise, of the same images.
        labels: Class index per image, where known.
    """
    if labels is None:
        does, score = "has larger logits", _log_sum_exp
    else:
        does, score = "is right", lambda logits: (logits.argmax(1) == labels).astype(np.float64)
    given, other = score(as_given), score(channels_reversed)
    ahead, behind = int((given > other).sum()), int((other > given).sum())
    if behind <= ahead or _sign_test(behind, ahead + behind) > _CHANCE:
        return ""
    return (
        f"The float network {does} on {behind} images only when their channels are reversed, and on"
        f" {ahead} only when they are not: the images look like BGR, the network takes RGB."
    )


def _sign_test(successes: int, trials: int) -> float:
    """Return the probability of at least `successes` of `trials` tosses of a fair coin."""
    outcomes = sum(math.comb(trials, k) for k in range(successes, trials + 1))
    return float(Fraction(outcomes, 2**trials))


def _log_sum_exp(logits: Logits) -> NDArray[np.float64]:
    highest = logits.max(axis=1, keepdims=True).astype(np.float64)
    result: NDArray[np.float64] = highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1))
    return result
