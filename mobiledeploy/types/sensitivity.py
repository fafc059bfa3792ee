"""Which layers int8 costs most, and what keeping each in float would bring back."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSensitivity:
    """One layer: a convolution or linear operator with its activation.

    Attributes:
        name: Its module.
        kind: What it is: "depthwise", "convolution" or "linear".
        only_sqnr_db: Of the logits where this layer alone is int8.
        kept_sqnr_db: Of the logits where this layer alone is float.
        gain_db: By how much that is more than with every layer in int8.
        macs: Multiply-accumulates for one image.
        macs_share: Of the network's.
    """

    name: str
    kind: str
    only_sqnr_db: float
    kept_sqnr_db: float
    gain_db: float
    macs: int
    macs_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitivityReport:
    """All layers of a network.

    Attributes:
        network: Its name.
        int8_sqnr_db: Of the logits with every layer in int8.
        source: The images that were measured on.
        count: How many.
        calibration_source: Those that the network was calibrated with.
        layers: The one that makes most noise first.
    """

    network: str
    int8_sqnr_db: float
    source: str
    count: int
    calibration_source: str
    layers: tuple[LayerSensitivity, ...]

    def document(self) -> dict[str, object]:
        """Return what `--json` writes."""
        return {
            "schema": 1,
            "kind": "mobiledeploy.sensitivity",
            "network": self.network,
            "int8_sqnr_db": self.int8_sqnr_db,
            "images": {"source": self.source, "count": self.count},
            "calibration": self.calibration_source,
            "layers": [asdict(layer) for layer in self.layers],
        }
