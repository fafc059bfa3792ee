"""Default limits of the parity ladder, rung by rung.

The defaults come from measurement (docs/explanation/parity-ladder.md has the table and the
commands). Each lies below what trained networks of a family reach and above what a broken network
reaches: they catch faults. Only the owner of an application knows how much loss it can accept.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.network import NetworkInfo


# Measured on trained networks (docs/explanation/parity-ladder.md): sound embeddings reach 0.997,
# those of reversed colours 0.90; sound maps reach 0.96, those of reversed colours 0.69.
_MIN_MEAN_COSINE = 0.95
_MIN_MEAN_IOU = 0.75


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerances:
    """Limits that the rungs have to meet.

    Attributes:
        min_rewrite_sqnr_db: BatchNorm folding against float, and equalization on calibration
            images: the same function, so only float rounding may differ.
        min_equalized_sqnr_db: Equalization on other images. It scales ReLU6 channels up, and these
            may then reach 6 where they did not on the calibration images.
        min_sqnr_db: int8 against float.
        min_top1_agreement: int8 against float; None if the outputs are no classes.
        min_mean_iou: int8 against float, for maps of classes; None without maps.
        min_mean_cosine: int8 against float, for embeddings; None without embeddings.
        min_float_sqnr_db: A float artifact against the folded network: float rounding again.
        min_mixed_sqnr_db: An artifact with layers in float against the integer reference. Runtimes
            round float sums differently; now and then a code behind them is one off, and the int8
            layers that follow amplify this to nearly the noise of int8 itself
            (docs/explanation/decisions/0006). The layers of an `.onnx` are also compared one by
            one. Fully int8 networks must match in every bit.
        max_half_way: For runtimes that compute in float: a code may be one off where the exact
            number lies within this distance of half-way between two codes, in steps.
        demanded: Limits that the user has set for every artifact against float, whatever its
            precision.
    """

    min_rewrite_sqnr_db: float = 80.0
    min_equalized_sqnr_db: float = 35.0
    min_sqnr_db: float = 12.0
    min_top1_agreement: float | None = 0.85
    min_mean_iou: float | None = None
    min_mean_cosine: float | None = None
    min_float_sqnr_db: float = 80.0
    min_mixed_sqnr_db: float = 18.0
    max_half_way: float = 0.001
    demanded: Mapping[str, float] = field(default_factory=dict)

    def of_quantization(self) -> dict[str, float]:
        """Return the limits of int8 against float, by their names in a report."""
        limits = {"min_sqnr_db": self.min_sqnr_db}
        if self.min_top1_agreement is not None:
            limits["min_top1_agreement"] = self.min_top1_agreement
        if self.min_mean_iou is not None:
            limits["min_mean_iou"] = self.min_mean_iou
        if self.min_mean_cosine is not None:
            limits["min_mean_cosine_similarity"] = self.min_mean_cosine
        return limits


def default_tolerances(info: NetworkInfo) -> Tolerances:
    """Return the limits of a network, with the SQNR that its family is expected to reach."""
    tasks = {output.task for output in info.outputs}
    has_map = any(output.task == "map" and output.shape[0] > 1 for output in info.outputs)
    limits = replace(
        Tolerances(),
        min_sqnr_db=info.expected_sqnr_db,
        min_mean_iou=_MIN_MEAN_IOU if has_map else None,
        min_mean_cosine=_MIN_MEAN_COSINE if "embedding" in tasks else None,
    )
    return limits if "classes" in tasks else replace(limits, min_top1_agreement=None)
