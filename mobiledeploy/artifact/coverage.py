"""How much of a network is computed in int8, counted from what an artifact holds."""

from __future__ import annotations

from dataclasses import dataclass

from mobiledeploy.errors import GateError


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatIsland:
    """An operator that computes in float.

    Attributes:
        name: As the artifact or its runtime calls it.
        operator: Its kind.
        elements: Activations that it writes, for one image.
        macs: Multiply-accumulates, for one image.
    """

    name: str
    operator: str
    elements: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What a network computes for one image, and how much of that in int8.

    An operator computes if it is neither a conversion (quantize, dequantize, cast) nor a layout
    (transpose, reshape, pad): these make no activation of their own and count on neither side.

    Attributes:
        counted_in: The graph that was counted: a runtime with its version, or a delegate.
        macs: Multiply-accumulates of convolutions and matrix products.
        int8_macs: Those of them whose activations are 8-bit integers.
        elements: Activations that operators write.
        int8_elements: Those of them that are 8-bit integers.
        float_islands: Every operator that writes anything else, in order.
    """

    counted_in: str
    macs: int
    int8_macs: int
    elements: int
    int8_elements: int
    float_islands: tuple[FloatIsland, ...]

    @property
    def macs_share(self) -> float:
        """Return the share of multiply-accumulates in int8; 0 where there are none."""
        return self.int8_macs / self.macs if self.macs else 0.0

    @property
    def elements_share(self) -> float:
        """Return the share of activations in int8; 0 where there are none."""
        return self.int8_elements / self.elements if self.elements else 0.0

    def document(self) -> dict[str, object]:
        """Return what manifests and `--json` say."""
        return {
            "counted_in": self.counted_in,
            "macs": self.macs,
            "int8_macs": self.int8_macs,
            "macs_share": self.macs_share,
            "activation_elements": self.elements,
            "int8_activation_elements": self.int8_elements,
            "activation_elements_share": self.elements_share,
            "float_islands": [
                {"name": i.name, "operator": i.operator, "elements": i.elements, "macs": i.macs}
                for i in self.float_islands
            ],
        }


def require_int8(name: str, coverage: Coverage | None, least: float) -> None:
    """Raise unless both shares reach `least`.

    Args:
        name: Of the artifact.
        coverage: None where it could not be counted, which does not pass.
        least: 0 to 1.

    Raises:
        GateError: a share is too small, or nothing was counted; the message names the operators.
    """
    if coverage is None or not coverage.elements:
        raise GateError(
            f"{name}: its int8 coverage could not be counted; expected at least {least:.1%}.",
            remedy="Only ONNX and XNNPACK delegates can be counted.",
        )
    if min(coverage.macs_share, coverage.elements_share) >= least:
        return
    worst = sorted(coverage.float_islands, key=lambda i: (-i.macs, -i.elements))
    named = ", ".join(f"{i.name} ({i.operator})" for i in worst[:5])
    more = f" and {len(worst) - 5} more" if len(worst) > 5 else ""
    raise GateError(
        f"{name} computes {coverage.macs_share:.1%} of its multiply-accumulates and"
        f" {coverage.elements_share:.1%} of its activations in int8; expected {least:.1%} of each."
        f" In float: {named}{more}.",
        remedy="`mobiledeploy inspect ARTIFACT` lists what is computed in float.",
    )
