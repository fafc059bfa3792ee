"""What passes, rung by rung, unless told otherwise.

The defaults come from measurement (docs/parity.md has the table and the commands): each lies below
what trained networks of the family reach, and above what a broken one does. They catch faults; what
is good enough for an application has to be said by its owner.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.network import NetworkInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """What passes.

    Attributes:
        min_rewrite_sqnr_db: Folding, and equalization on the images that it was made with: nothing
            but float rounding.
        min_equalized_sqnr_db: Equalization on other images: it scales ReLU6 channels up that may
            then reach 6 where calibration did not.
        min_sqnr_db: Quantization, against float.
        min_top1_agreement: Quantization, against float.
        min_float_sqnr_db: A float artifact against the folded network: float rounding again.
        min_mixed_sqnr_db: An artifact with layers in float against the reference: a runtime rounds
            float sums its own way, a code behind them comes out one apart now and then, and the
            int8 layers behind multiply that until it is nearly as much as int8 itself costs
            (decision record 0006). Of an `.onnx` the layers are judged as well, each from the same
            codes. Fully int8 networks are held to every bit.
        max_half_way: How far from half-way, in steps, a number may lie that a runtime computing in
            float has rounded to the other side.
        demanded: Against float, of every artifact, whatever it holds: what somebody asked for, by
            name, where the others are what networks reach.
    """

    min_rewrite_sqnr_db: float = 80.0
    min_equalized_sqnr_db: float = 35.0
    min_sqnr_db: float = 12.0
    min_top1_agreement: float = 0.85
    min_float_sqnr_db: float = 80.0
    min_mixed_sqnr_db: float = 18.0
    max_half_way: float = 0.001
    demanded: Mapping[str, float] = field(default_factory=dict)

    def of_quantization(self) -> dict[str, float]:
        """Return the limits against float, by their names in a report."""
        return {"min_sqnr_db": self.min_sqnr_db, "min_top1_agreement": self.min_top1_agreement}


def default_tolerances(info: NetworkInfo) -> Tolerances:
    """Return what a network has to reach."""
    return replace(Tolerances(), min_sqnr_db=info.expected_sqnr_db)
