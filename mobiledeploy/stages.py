"""The values that pass from stage to stage: model, images, encodings, recipe.

    FloatModel -> fold -> FoldedModel -> equalize -> FoldedModel -> quantize -> QuantizedModel

They hold data and no algorithms; all are frozen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, cast

from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn
    from torch.export import ExportedProgram
    from torch.fx import Node

    from mobiledeploy.network import NetworkInfo

Equalization = Literal["none", "cross-layer", "learned"]
"""How channels were rescaled: not at all, by cross-layer equalization, or by learned scales."""

EMBEDDED = "embedded"
"""`CalibrationSet.source` of the images that are bundled with the package."""


def describe_images(count: int, source: str) -> str:
    """Return "32 bundled images" or "200 images from photos".

    Args:
        count: Number of images.
        source: As in `CalibrationSet`.
    """
    return f"{count} bundled images" if source == EMBEDDED else f"{count} images from {source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatModel:
    """A network as built: with BatchNorm and its weights, in eval mode."""

    info: NetworkInfo
    module: nn.Module


@dataclass(frozen=True, slots=True)
class ActivationStats:
    """Minimum and maximum of one activation, per image and channel.

    Attributes:
        minima: (images, channels), taken over height and width.
        maxima: (images, channels), taken over height and width.
    """

    minima: NDArray[np.float32]
    maxima: NDArray[np.float32]

    @property
    def margin(self) -> float:
        """Return the factor by which unseen images may exceed these extremes, 1 + 3 / sqrt(n).

        Measured, not derived; see decision record 0007.
        """
        return float(1 + 3 / len(self.maxima) ** 0.5)

    def divided_by(self, scales: NDArray[np.float32]) -> ActivationStats:
        """Return the statistics of x / s for scales s (channels,), which may be negative."""
        import numpy as np  # noqa: PLC0415 - keeps this module free of numpy at import time

        ends = (self.minima / scales, self.maxima / scales)
        return ActivationStats(np.minimum(*ends), np.maximum(*ends))


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedActivations:
    """The activation statistics of one traced network on one calibration set.

    Attributes:
        module: The graph that was run; compared by identity.
        images: The images that it was run on; compared by identity.
        by_node: Statistics by node name.
    """

    module: nn.Module
    images: CalibrationSet
    by_node: Mapping[str, ActivationStats]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedModel:
    """A network without BatchNorm: every BN is folded into the convolution before it.

    Attributes:
        info: What is known about the network.
        module: The network, in eval mode; a flat ATen graph once it is equalized.
        folded_layers: Names of the convolutions that a BN was folded into.
        equalization: How the channels were rescaled after folding.
        ranges: Activation ranges that were learned with the equalization scales, by the name of
            the shared encoding; empty if none were. `quantize` uses them if they beat its own.
        observations: Statistics of the activations, if calibration images were run.
    """

    info: NetworkInfo
    module: nn.Module
    folded_layers: tuple[str, ...] = ()
    equalization: Equalization = "none"
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    observations: ObservedActivations | None = field(default=None, repr=False, compare=False)


def evenly_spread(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` indices below `count`, evenly spaced.

    Image sets are ordered by class, so the first images alone would miss most classes.
    """
    taken = min(count, wanted)
    return [i * count // taken for i in range(taken)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """Preprocessed images, in order.

    Attributes:
        images: float32, (N, C, H, W).
        source: The folder or file that they came from, or `EMBEDDED`.
        sha256: sha256 of the ordered list of the images' own sha256, before preprocessing.
        labels: Class index per image, if the source has labels.
        names: One name per image, for reports.
        notes: What was left aside, chosen or assumed when they were loaded, one sentence each.
    """

    images: NDArray[np.float32]
    source: str
    sha256: str
    labels: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def shares_source(self, other: CalibrationSet) -> bool:
        """Return whether both sets come from the same folder or file, however its path is spelt."""
        if self.sha256 == other.sha256 or self.source == other.source:
            return True
        places = [os.path.realpath(s.source) for s in (self, other) if s.source != EMBEDDED]
        return len(places) == 2 and places[0] == places[1]

    def spread(self, count: int) -> CalibrationSet:
        """Return at most `count` images, evenly spaced; `sha256` stays that of the whole set."""
        chosen = evenly_spread(self.count, count)
        return replace(
            self,
            images=self.images[chosen],
            labels=None if self.labels is None else tuple(self.labels[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen) if self.names else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Affine int8 encoding of a tensor: real = (q - zero_point) * scale, q in [-128, 127].

    Attributes:
        scale: Step size, above 0 and exactly representable in float32, as runtimes store it.
        zero_point: The code of zero, in [-128, 127].
    """

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """Return the smallest representable real number."""
        return (-128 - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """Return the largest representable real number."""
        return (127 - self.zero_point) * self.scale

    def enforces(self, clamp: tuple[float, float]) -> bool:
        """Return whether saturation already clamps to these bounds (low, high)."""
        half_step = self.scale / 2
        return clamp[0] - half_step < self.low and self.high < clamp[1] + half_step


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantRecipe:
    """How a network is quantized: with weights and images, all that the int8 network depends on.

    Attributes:
        equalization: How the channels are rescaled before `quantize`, which takes no other model.
        range_rule: How activation ranges follow from calibration: "minmax" takes everything that
            was observed, "searched" minimises the error of the logits.
        rounding: How weights are rounded: to nearest, by GPTQ, or by GPTQ and then learned from
            the float network's logits.
        weight_scheme: Fixed: int8, symmetric, per output channel.
        activation_scheme: Fixed: int8, affine, per tensor.
        float_layers: Names of the layers that compute in float, in the network's order.
    """

    equalization: Equalization = "learned"
    range_rule: Literal["minmax", "searched"] = "searched"
    rounding: Literal["nearest", "gptq", "learned"] = "gptq"
    weight_scheme: str = "int8 symmetric per-channel"
    activation_scheme: str = "int8 affine per-tensor"
    float_layers: tuple[str, ...] = ()


RECIPES: Mapping[str, QuantRecipe] = {
    "fast": QuantRecipe(equalization="cross-layer", rounding="nearest"),
    "balanced": QuantRecipe(),
    "best": QuantRecipe(rounding="learned"),
}
"""Presets of `--ptq`: they take seconds, tens of seconds, minutes (V2, 224 pixels, 2 cores)."""


def recipe_of(given: QuantRecipe | str) -> QuantRecipe:
    """Return a recipe, which may be given by the name of a preset.

    Raises:
        UsageError: there is no such preset.
    """
    if isinstance(given, QuantRecipe):
        return given
    if given not in RECIPES:
        raise UsageError(
            f"There is no recipe {given!r}.",
            remedy=f"Choose one of {', '.join(RECIPES)}, or pass a QuantRecipe.",
        )
    return RECIPES[given]


@dataclass(frozen=True, slots=True)
class Margin:
    """The smallest distance from half-way between two codes of one layer's results.

    Attributes:
        layer: The layer's name; "input" for the network's input.
        steps: The distance, in steps of the output's scale; 0.5 at most.
    """

    layer: str
    steps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedModel:
    """The int8 network; ONNX and `.pte` artifacts are two encodings of `program`.

    Attributes:
        info: What is known about the network.
        program: The PT2E-converted graph: quantize and dequantize around float operators.
        encodings: Encoding of every activation, by the name of the operator that produces it.
        recipe: How the network was quantized.
        calibration_sha256: sha256 of the calibration images.
        calibration_source: Where the calibration images came from.
        calibration_count: Number of calibration images.
        encodings_digest: sha256 over all activation encodings, quantized weights and biases.
        margin: The layer whose results come nearest to half-way between two codes.
        layers: Module of each operator that `encodings` names; "" for the input.
    """

    info: NetworkInfo
    program: ExportedProgram
    encodings: Mapping[str, Encoding]
    recipe: QuantRecipe
    calibration_sha256: str
    calibration_source: str
    calibration_count: int
    encodings_digest: str
    margin: Margin
    layers: Mapping[str, str] = field(default_factory=dict)

    @property
    def output_encodings(self) -> tuple[Encoding | None, ...]:
        """Return the encoding of each output's codes; None for one that is computed in float."""
        results = self.program.graph.output_node().args[0]
        return tuple(_encoding_read(node) for node in cast("tuple[Node, ...]", results))


def _encoding_read(node: Node) -> Encoding | None:
    """Return the encoding that a node dequantizes; None for any other operator."""
    if str(node.target) != "quantized_decomposed.dequantize_per_tensor.default":
        return None
    _, scale, zero_point, *_ = node.args
    return Encoding(scale=cast("float", scale), zero_point=cast("int", zero_point))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """One network after each stage of the pipeline.

    Attributes:
        original: As built, with BatchNorm.
        folded: Without BatchNorm.
        equalized: After equalization; None if the network is deployed in float.
        deployed: What the artifacts encode: `folded`, or the int8 network.
        calibration: Images for equalization and quantization; None if deployed in float.
    """

    original: FloatModel
    folded: FoldedModel
    equalized: FoldedModel | None
    deployed: QuantizedModel | FoldedModel
    calibration: CalibrationSet | None
