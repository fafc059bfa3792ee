"""How much of a network computes in int8, counted from an artifact."""

from __future__ import annotations

from dataclasses import dataclass

from mobiledeploy.errors import GateError


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatIsland:
    """An operator that computes in float.

    Attributes:
        name: Its name in the artifact or its runtime.
        operator: Its kind.
        elements: Number of activations that it writes for one image.
        macs: Number of multiply-accumulates for one image.
    """

    name: str
    operator: str
    elements: int
    macs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The work of a network for one image, and how much of it is int8.

    Conversions (quantize, dequantize, cast) and changes of layout (transpose, reshape, pad) compute
    no activation of their own and are not counted.

    Attributes:
        counted_in: The graph that was counted: a runtime with its version, or a delegate.
        macs: Multiply-accumulates of convolutions and matrix products.
        int8_macs: Multiply-accumulates with 8-bit activations.
        elements: Activations that operators write.
        int8_elements: Activations that are 8-bit integers.
        float_islands: The operators that write anything but 8-bit integers, in order.
    """

    counted_in: str
    macs: int
    int8_macs: int
    elements: int
    int8_elements: int
    float_islands: tuple[FloatIsland, ...]

    @property
    def macs_share(self) -> float:
        """Return the share of multiply-accumulates in int8; 0 if there are none."""
        return self.int8_macs / self.macs if self.macs else 0.0

    @property
    def elements_share(self) -> float:
        """Return the share of activations in int8; 0 if there are none."""
        return self.int8_elements / self.elements if self.elements else 0.0

    def document(self) -> dict[str, object]:
        """Return the JSON object that manifests and `--json` contain."""
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
        name: Name of the artifact.
        coverage: The coverage; None, if it could not be counted, does not pass.
        least: The least share, 0 to 1.

    Raises:
        GateError: a share is too small, or nothing was counted. The message names the largest
            operators that compute in float.
    """
    if coverage is None or not coverage.elements:
        raise GateError(
            f"{name}: its int8 coverage could not be counted; expected at least {least:.1%}.",
            remedy="Coverage can only be counted in ONNX files and in XNNPACK delegates.",
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
        remedy="`mobiledeploy inspect ARTIFACT` lists all operators that compute in float.",
    )
