"""The network on its way: float, folded, quantized; and the images that it meets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn
    from torch.export import ExportedProgram

    Images = NDArray[np.float32]
    Logits = NDArray[np.float32]
    OnDevice = Callable[[Path, Images], Logits]

Interpolation = Literal["bilinear", "bicubic", "nearest"]
Equalization = Literal["none", "cross-layer", "learned"]
"""Whether channels were rescaled: not at all, across layers, or learned from the logits."""

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
class InputSpec:
    """The network's input: an image, float32 in NCHW.

    Attributes:
        channels: Of the image.
        height: In pixels.
        width: In pixels.
        preprocessing: How an image file becomes this input.
        name: Of the graph's input.
    """

    channels: int
    height: int
    width: int
    preprocessing: Preprocessing
    name: str = INPUT_NAME

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape of a batch of one: (1, C, H, W)."""
        return (1, self.channels, self.height, self.width)

    @property
    def resize_short_side(self) -> int:
        """Return the length in pixels to which an image's short side is resized before the crop."""
        return round(self.height / self.preprocessing.crop_pct)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """One output of the network: float32, (N, size).

    Attributes:
        size: Numbers per image: classes of a classifier, features where there is none.
        labels: Names of the classes; empty where they are not known.
        name: Of the graph's output.
    """

    size: int
    labels: tuple[str, ...] = ()
    name: str = OUTPUT_NAME


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInfo:
    """Everything that the stages after `build` know about a network, whatever its architecture.

    Attributes:
        name: The stem of artifact names, for example ``mobilenet_v2_1.0_224``.
        architecture: What metadata calls the architecture, for example "v2".
        input: The image that it takes.
        outputs: In the order of the graph's outputs.
        provenance: Where the weights came from.
        source: What `build` needs to make the network again, as manifests keep it.
        expected_sqnr_db: What int8 networks of this architecture reach against float at least.
    """

    name: str
    architecture: str
    input: InputSpec
    outputs: tuple[OutputSpec, ...]
    provenance: WeightsProvenance
    source: Mapping[str, Any]
    expected_sqnr_db: float

    @property
    def preprocessing(self) -> Preprocessing:
        """Return how an image file becomes the input."""
        return self.input.preprocessing

    @property
    def classes(self) -> int:
        """Return the size of the first output."""
        return self.outputs[0].size

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the class names of the first output; empty where they are not known."""
        return self.outputs[0].labels

    def with_labels(self, labels: tuple[str, ...]) -> NetworkInfo:
        """Return this with other class names for the first output."""
        return replace(self, outputs=(replace(self.outputs[0], labels=labels), *self.outputs[1:]))

    @property
    def has_random_weights(self) -> bool:
        """Return whether the weights are random: there is no accuracy to lose."""
        return self.provenance.source == "random"


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatModel:
    """A built network with its weights, in eval mode."""

    info: NetworkInfo
    module: nn.Module


@dataclass(frozen=True, slots=True)
class ActivationStats:
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

        Measured, not derived: decision record 0007.
        """
        return float(1 + 3 / len(self.maxima) ** 0.5)

    def divided(self, factors: NDArray[np.float32]) -> ActivationStats:
        """Return what the tensor shows whose channels are x / s, s being `factors`."""
        import numpy as np  # noqa: PLC0415 - who has seen something has loaded it

        ends = (self.minima / factors, self.maxima / factors)
        return ActivationStats(np.minimum(*ends), np.maximum(*ends))


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedActivations:
    """What calibration saw of a traced network's activations.

    Attributes:
        module: Of this very graph.
        images: On these very ones.
        by_node: By the name of the node.
    """

    module: nn.Module
    images: CalibrationSet
    by_node: Mapping[str, ActivationStats]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedModel:
    """A network without BatchNorm: every BN has become part of the convolution before it.

    Attributes:
        equalization: How its channels have been rescaled since.
        ranges: Of activations, by site, as they were learned with the factors (empty: they were
            not); `quantize` takes them where they are better than those that it searches.
        observations: Of its activations, if images have been through it.
    """

    info: NetworkInfo
    module: nn.Module
    folded_layers: tuple[str, ...] = ()
    equalization: Equalization = "none"
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    observations: ObservedActivations | None = field(default=None, repr=False, compare=False)


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
        equalization: How the channels were rescaled before `quantize`, which records what it got.
        range_rule: How activation ranges follow from calibration: everything that was seen, or
            searched for the least error of the logits.
        rounding: Of the weights: each to its nearest, so that a layer's errors cancel, or, from
            there, learned from the float network's logits.
        weight_scheme: Fixed: int8, symmetric, per output channel.
        activation_scheme: Fixed: int8, affine, per tensor.
        float_layers: Names of layers that compute in float, in the network's order.
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

    info: NetworkInfo
    program: ExportedProgram
    encodings: Mapping[str, Encoding]
    recipe: QuantRecipe
    calibration_sha256: str
    calibration_source: str
    calibration_count: int
    encodings_digest: str
    layers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """One network in all its stages.

    Attributes:
        original: As built, with BatchNorm.
        folded: Without.
        equalized: None where the network is deployed in float.
        deployed: What the artifacts encode: `folded`, or the int8 network.
        calibration: The images that it was equalized and quantized with.
    """

    original: FloatModel
    folded: FoldedModel
    equalized: FoldedModel | None
    deployed: QuantizedModel | FoldedModel
    calibration: CalibrationSet | None
