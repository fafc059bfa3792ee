"""Sentences about what is wrong with a rung beyond its comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.metrics import varies

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from mobiledeploy.quantization.integer_reference import IntegerReference
    from mobiledeploy.quantization.rounding_modes import RoundingDifference


def rounding_failures(
    reference: IntegerReference, found: Sequence[RoundingDifference]
) -> list[str]:
    """Return a sentence about the first layer that depends on the rounding mode, for each mode."""
    sentences = []
    for mode in dict.fromkeys(difference.mode for difference in found):
        of_mode = [difference for difference in found if difference.mode == mode]
        names = {difference.quantize for difference in of_mode}
        layers = [name for name in reference.operators if name in names]
        codes = sum(d.differing for d in of_mode if d.quantize == layers[0])
        first = reference.operators[layers[0]].title
        sentences.append(
            f"Rounded by {mode}, {codes} codes of {first} differ from the integer reference, given"
            f" the same inputs ({len(layers)} layers differ)."
        )
    return sentences


def constant_outputs(logits: NDArray[np.float32]) -> list[str]:
    """Return a sentence if a network gives the same outputs for all images."""
    if len(logits) < 2 or varies(logits):
        return []
    images = f"all {len(logits)} images"
    return [f"The outputs are the same for {images}: they do not depend on the image at all."]
