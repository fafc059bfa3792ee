"""Detect images whose colour channels are in the wrong order.

All rungs of the ladder get the same images, so none of them can notice that all images are BGR.
The float network can. With channels in the order it was trained on it classifies more images
correctly; without labels, its logits are larger. A sign test over the images decides.

"Larger" means by log-sum-exp, which separates images like those of the training from others (Liu et
al., "Energy-based Out-of-distribution Detection" (2020), section 3). The largest probability
separates less well: it is high for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy

from mobiledeploy.significance import one_sided_sign_test

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Logits = NDArray[np.float32]

_MAX_P_VALUE = 1e-3


def reversed_channels(
    as_given: Logits, channels_reversed: Logits, labels: Sequence[int] | None
) -> str:
    """Return a sentence if the network clearly prefers reversed channels, else an empty string.

    Args:
        as_given: Float logits of the images, (N, classes).
        channels_reversed: Float logits of the same images with reversed channels, (N, classes).
        labels: Class index of each image; None where they are unknown.
    """
    if labels is None:
        claim, score = "has larger logits", _log_sum_exp
    else:
        claim, score = "is right", lambda logits: (logits.argmax(1) == labels).astype(np.float64)
    given, other = score(as_given), score(channels_reversed)
    ahead, behind = int((given > other).sum()), int((other > given).sum())
    if behind <= ahead or one_sided_sign_test(behind, ahead) > _MAX_P_VALUE:
        return ""
    return (
        f"The float network {claim} on {behind} images only with reversed channels, and on {ahead}"
        " only without: the images look like BGR, the network takes RGB."
    )


def _log_sum_exp(logits: Logits) -> NDArray[np.float64]:
    result: NDArray[np.float64] = scipy.special.logsumexp(logits.astype(np.float64), axis=1)
    return result
