"""The network on its way: float, folded, quantized; and the images that it meets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn
    from torch.export import ExportedProgram

    from mobiledeploy.types.spec import ModelSpec

Interpolation = Literal["bilinear", "bicubic", "nearest"]
Factors = Literal["given", "even", "learned"]
"""What channels are scaled by: nothing, what makes them even, or from there what logits ask for."""

EMBEDDED = "embedded"
"""The source of the images that the package carries."""
INPUT_NAME = "input"
OUTPUT_NAME = "logits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an image becomes an input: resize, centre crop, scale to [0, 1], normalise.

    Attributes:
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        crop_pct: Crop side / resized short side (224 / 256 = 0.875 for ImageNet).
        interpolation: Of the resize.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_pct: float = 0.875
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsProvenance:
    """Where the weights came from.

    Attributes:
        source: "imagenet", "random" or "file".
        origin: The URL, package or path that they were read from; the seed for random ones.
        sha256: Of the checkpoint file; None for random weights.
        dialect: The naming scheme that the checkpoint spoke, for example "torchvision".
        notes: What was inferred from the tensors, one sentence each.
    """

    source: Literal["imagenet", "random", "file"]
    origin: str
    sha256: str | None = None
    dialect: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatModel:
    """A built network with its weights, in eval mode."""

    spec: ModelSpec
    module: nn.Module
    provenance: WeightsProvenance
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """What one tensor showed.

    Attributes:
        minima: (images, channels), over height and width.
        maxima: Likewise.
    """

    minima: NDArray[np.float32]
    maxima: NDArray[np.float32]

    @property
    def margin(self) -> float:
        """How much further, as a factor, images may reach that were not seen: 1 + 3 / sqrt(n).

        Measured, not derived: docs/decisions/0007.
        """
        return float(1 + 3 / len(self.maxima) ** 0.5)

    def divided(self, factors: NDArray[np.float32]) -> Observed:
        """Return what the tensor shows whose channels are x / s, s being `factors`."""
        import numpy as np  # noqa: PLC0415 - who has seen something has loaded it

        ends = (self.minima / factors, self.maxima / factors)
        return Observed(np.minimum(*ends), np.maximum(*ends))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """What calibration saw of a traced network's activations.

    Attributes:
        module: Of this very graph.
        images: On these very ones.
        by_node: By the name of the node.
    """

    module: nn.Module
    images: CalibrationSet
    by_node: Mapping[str, Observed]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedModel:
    """A network without BatchNorm: every BN has become part of the convolution before it.

    Attributes:
        factors: How its channels have been rescaled since.
        ranges: Of activations, by site, as they were learned with the factors (empty: they were
            not); `quantize` takes them where they are better than those that it searches.
        observations: Of its activations, if images have been through it.
    """

    spec: ModelSpec
    module: nn.Module
    provenance: WeightsProvenance
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    labels: tuple[str, ...] = ()
    folded_layers: tuple[str, ...] = ()
    factors: Factors = "given"
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    observations: Observations | None = field(default=None, repr=False, compare=False)


def evenly_spread(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` indices below `count`, evenly spread: sets are ordered by class."""
    taken = min(count, wanted)
    return [i * count // taken for i in range(taken)]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """Preprocessed images, in order.

    Attributes:
        images: float32, (N, C, H, W).
        source: Where they came from: a folder, a file, or `EMBEDDED`.
        sha256: Of the ordered list of the images' own sha256 (before preprocessing).
        labels: Class index per image where the source has them.
        names: One per image, for reports.
    """

    images: NDArray[np.float32]
    source: str
    sha256: str
    labels: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Return the number of images."""
        return len(self.images)

    def shares_source(self, other: CalibrationSet) -> bool:
        """Return whether two sets are one, or parts of one: a folder may be spelt several ways."""
        if self.sha256 == other.sha256 or self.source == other.source:
            return True
        places = [os.path.realpath(s.source) for s in (self, other) if s.source != EMBEDDED]
        return len(places) == 2 and places[0] == places[1]

    def spread(self, count: int) -> CalibrationSet:
        """Return so many images, evenly spread, or all where there are no more.

        Sets are ordered by class. `sha256` goes on naming the whole.
        """
        chosen = evenly_spread(self.count, count)
        return replace(
            self,
            images=self.images[chosen],
            labels=None if self.labels is None else tuple(self.labels[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen) if self.names else (),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """Affine int8: real = (q - zero_point) * scale, with q in [-128, 127].

    `scale` is exactly representable in float32, as the runtimes store it.
    """

    scale: float
    zero_point: int

    @property
    def low(self) -> float:
        """Return the smallest real number that can be encoded."""
        return (-128 - self.zero_point) * self.scale

    @property
    def high(self) -> float:
        """Return the largest real number that can be encoded."""
        return (127 - self.zero_point) * self.scale

    def performs(self, clamp: tuple[float, float]) -> bool:
        """Return whether codes cannot say what lies outside these bounds: saturation clamps."""
        half_step = self.scale / 2
        return clamp[0] - half_step < self.low and self.high < clamp[1] + half_step


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantRecipe:
    """How the network was quantized: with the spec and the data, all that the result depends on.

    Attributes:
        factors: How the channels were rescaled before: `quantize` notes what it was given.
        range_rule: How activation ranges follow from calibration: everything that was seen, or
            searched for the least error of the logits.
        rounding: Of the weights: each to its nearest, so that a layer's errors cancel, or, from
            there, learned from the float network's logits.
        weight_scheme: Fixed: int8, symmetric, per output channel.
        activation_scheme: Fixed: int8, affine, per tensor.
        float_layers: Names of layers that compute in float, in the network's order.
    """

    factors: Factors = "learned"
    range_rule: Literal["minmax", "searched"] = "searched"
    rounding: Literal["nearest", "cancelling", "learned"] = "cancelling"
    weight_scheme: str = "int8 symmetric per-channel"
    activation_scheme: str = "int8 affine per-tensor"
    float_layers: tuple[str, ...] = ()


RECIPES: Mapping[str, QuantRecipe] = {
    "fast": QuantRecipe(factors="even", rounding="nearest"),
    "balanced": QuantRecipe(),
    "best": QuantRecipe(rounding="learned"),
}
"""By what `--ptq` calls them: seconds, tens of seconds, minutes (V2 at 224 pixels, two cores)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedModel:
    """The one int8 network. ONNX and `.pte` are two encodings of `program`.

    Attributes:
        program: The PT2E-converted graph (quantize/dequantize around float operators).
        encodings: Of every activation, by the name of the operator that produces it.
        recipe: How it was made.
        calibration_sha256: What it was calibrated on.
        encodings_digest: sha256 over all activation encodings and quantized weights.
        layers: The module of each operator that `encodings` names; "" for the input.
    """

    spec: ModelSpec
    program: ExportedProgram
    encodings: Mapping[str, Encoding]
    recipe: QuantRecipe
    calibration_sha256: str
    calibration_source: str
    calibration_count: int
    encodings_digest: str
    provenance: WeightsProvenance
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    labels: tuple[str, ...] = ()
    layers: Mapping[str, str] = field(default_factory=dict)
