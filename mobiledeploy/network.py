"""The values that pass from stage to stage: network, images, encodings, recipe.

    FloatModel -> fold -> FoldedModel -> equalize -> FoldedModel -> quantize -> QuantizedModel

They hold data and no algorithms; all are frozen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn
    from torch.export import ExportedProgram

    Images = NDArray[np.float32]
    Logits = NDArray[np.float32]
    OnDevice = Callable[[Path, Images], Logits]

Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "bilinear-aliased"]
"""How images are resized. Where an image shrinks, the first two and "lanczos" average all pixels
that become one; "nearest" and "bilinear-aliased" read one and four of them."""
Equalization = Literal["none", "cross-layer", "learned"]
"""How channels were rescaled: not at all, by cross-layer equalization, or by learned scales."""
Task = Literal["classes", "regression", "embedding", "boxes", "map"]
"""What outputs mean: scores of classes, numbers in units of their own, a vector of features,
coordinates of boxes, or one vector of class scores per place of an image."""

Activation = Literal["none", "softmax", "sigmoid", "normalize", "top5", "codes"]
"""What an artifact returns of an output of the network. Nothing else than its values; in float,
probabilities, vectors of length 1 (L2 normalisation), or the five largest probabilities with their
classes; or the integers themselves, without the last dequantization."""

InputName = Literal["float", "rgba-u8", "bgra-u8", "rgb-u8", "gray-u8"]
"""Names of input formats, as `export --input` takes them."""

EMBEDDED = "embedded"
"""`CalibrationSet.source` of the images that are bundled with the package."""
CUSTOM = "custom"
"""`NetworkInfo.architecture` of a network that is none of the families."""
INPUT_NAME = "input"
OUTPUT_NAME = "logits"
PROBABILITIES_NAME = "probabilities"
EMBEDDING_NAME = "embedding"
_NAME_OF_RESULT: Mapping[Activation, str] = {
    "softmax": PROBABILITIES_NAME,
    "sigmoid": PROBABILITIES_NAME,
    "normalize": EMBEDDING_NAME,
    "top5": "top5",
    "codes": "codes",
}
"""Names of outputs that have none of their own, by what artifacts return of them."""


ImageSize = int | tuple[int, int]
"""Size of the input in pixels: the side of a square, or height and width."""


def sides_of(resolution: ImageSize) -> tuple[int, int]:
    """Return height and width in pixels."""
    return (resolution, resolution) if isinstance(resolution, int) else resolution


def describe_size(resolution: ImageSize) -> str:
    """Return "224", or "160x120" for height and width."""
    return str(resolution) if isinstance(resolution, int) else "{}x{}".format(*resolution)


def describe_images(count: int, source: str) -> str:
    """Return "32 bundled images" or "200 images from photos".

    Args:
        count: Number of images.
        source: As in `CalibrationSet`.
    """
    return f"{count} bundled images" if source == EMBEDDED else f"{count} images from {source}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """How an image becomes an input: resize, centre crop, scale to [0, 1], normalise.

    Attributes:
        mean: Mean per channel of pixels in [0, 1].
        std: Standard deviation per channel of pixels in [0, 1].
        crop_pct: Side of the crop / short side after the resize (224 / 256 = 0.875 for ImageNet).
        interpolation: Interpolation of the resize.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_pct: float = 0.875
    interpolation: Interpolation = "bilinear"


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsProvenance:
    """Where the weights came from.

    Attributes:
        source: "imagenet", "random", "file", or "code" for those that the user's code returned.
        origin: URL, package, path or code that the weights come from; the seed of random weights.
        sha256: sha256 of the checkpoint file, or of the tensors that the code returned; None for
            random weights.
        dialect: Naming scheme of the checkpoint's parameters, for example "torchvision".
        notes: What was inferred from the tensors, one sentence each.
    """

    source: Literal["imagenet", "random", "file", "code"]
    origin: str
    sha256: str | None = None
    dialect: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class InputFormat:
    """What an app writes into the input of an artifact.

    Attributes:
        name: Its name.
        element: Type of each value.
        layout: Order of the axes: "NCHW" are planes, "NHWC" pixels.
        order: The channels of a pixel, in memory order; empty for planes, in the network's order.
    """

    name: InputName
    element: Literal["float32", "uint8"]
    layout: Literal["NCHW", "NHWC"]
    order: str = ""

    @property
    def is_pixels(self) -> bool:
        """Return whether the app writes pixels as they are, and the network normalises them."""
        return self.element == "uint8"


INPUT_FORMATS: Mapping[InputName, InputFormat] = {
    "float": InputFormat("float", "float32", "NCHW"),
    "rgba-u8": InputFormat("rgba-u8", "uint8", "NHWC", "RGBA"),
    "bgra-u8": InputFormat("bgra-u8", "uint8", "NHWC", "BGRA"),
    "rgb-u8": InputFormat("rgb-u8", "uint8", "NHWC", "RGB"),
    "gray-u8": InputFormat("gray-u8", "uint8", "NHWC", "Y"),
}
"""All input formats, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """The network's input: an image.

    Attributes:
        channels: Number of channels that the network was trained with.
        height: Height in pixels.
        width: Width in pixels.
        preprocessing: How an image file becomes the input that the network was trained with.
        format: What artifacts take. Pixels are cropped and resized, but not normalised.
        name: Name of the graph's input.
    """

    channels: int
    height: int
    width: int
    preprocessing: Preprocessing
    format: InputFormat = INPUT_FORMATS["float"]
    name: str = INPUT_NAME

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Return the shape of a batch of one: (1, C, H, W)."""
        return (1, self.channels, self.height, self.width)

    @property
    def folded_shape(self) -> tuple[int, int, int, int]:
        """Return the shape of a batch of one once preprocessing is folded: (1, C, H, W).

        The channels are those of a pixel, or the network's own if nothing is folded.
        """
        return (1, len(self.format.order) or self.channels, self.height, self.width)

    @property
    def artifact_shape(self) -> tuple[int, int, int]:
        """Return the shape of one image in an artifact's layout: (C, H, W) or (H, W, C)."""
        _, channels, height, width = self.folded_shape
        planes = self.format.layout == "NCHW"
        return (channels, height, width) if planes else (height, width, channels)

    @property
    def app_preprocessing(self) -> Preprocessing | None:
        """Return how an app makes the input from pixels; None if the input is the pixels."""
        return None if self.format.is_pixels else self.preprocessing

    @property
    def size(self) -> ImageSize:
        """Return the side of a square input, or height and width."""
        return self.height if self.height == self.width else (self.height, self.width)

    @property
    def resizing(self) -> dict[str, object]:
        """Return how images are resized and cropped, as in metadata and manifests' documents.

        A square input has the short side of the resized image and the side of the crop. Otherwise
        both have height and width: an image is resized, in proportion, until it covers the first.
        """
        cover = tuple(round(side / self.preprocessing.crop_pct) for side in self.shape[2:])
        if self.height == self.width:
            return {"resize_short_side": cover[0], "center_crop": self.height}
        return {"resize_to_cover": list(cover), "center_crop": [self.height, self.width]}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSpec:
    """One output of the network: float32.

    Attributes:
        size: Values per image: the classes of a classifier, the features of a headless network.
        dimensions: Shape of one image's values, for example (21, 64, 64) of a map; empty for
            (size,).
        labels: Class names; empty if unknown.
        task: What the values mean. Only those of classes have a largest one that counts.
        name: Name of the graph's output.
        activation: What artifacts compute from these values, as their last operator.
    """

    size: int
    labels: tuple[str, ...] = ()
    task: Task = "classes"
    name: str = OUTPUT_NAME
    dimensions: tuple[int, ...] = ()
    activation: Activation = "none"

    def with_activation(self, activation: Activation) -> OutputSpec:
        """Return the output with an activation behind it.

        An output that has no name of its own is called after the result.
        """
        if activation == "none":
            return self
        result = _NAME_OF_RESULT[activation]
        name = result if self.name == OUTPUT_NAME else self.name
        return replace(self, activation=activation, name=name)

    @property
    def is_exact(self) -> bool:
        """Return whether artifacts return the network's own values, so that no bit may differ."""
        return self.activation in {"none", "codes"}

    @property
    def tensors(self) -> tuple[str, ...]:
        """Return the names of its tensors in artifacts: two of the five largest, else its own."""
        if self.activation == "top5":
            return (f"{self.name}_classes", f"{self.name}_probabilities")
        return (self.name,)

    @property
    def class_axis(self) -> int:
        """Return the axis of a batch that classes and vectors lie along: 1 of maps, else -1."""
        return 1 if len(self.shape) == 3 else -1

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one image's values."""
        return self.dimensions or (self.size,)


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkInfo:
    """What the stages after `build` know about a network, independent of its architecture.

    Attributes:
        name: The stem of artifact names, for example ``mobilenet_v2_1.0_224``.
        architecture: Name of the architecture in metadata, for example "v2".
        input: The input image.
        outputs: The outputs, in the graph's order.
        provenance: Where the weights came from.
        source: The specification that `build` needs to build the network again, as in manifests.
        expected_sqnr_db: Lowest SQNR in dB that a sound int8 network of this architecture reaches
            against float.
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
        """Return the preprocessing of the input."""
        return self.input.preprocessing

    @property
    def classes(self) -> int:
        """Return the size of the first output."""
        return self.outputs[0].size

    @property
    def is_plain(self) -> bool:
        """Return whether the network has one output, (N, values), of the usual name."""
        first, *others = self.outputs
        return not others and not first.dimensions and first.name == OUTPUT_NAME

    @property
    def label_count(self) -> int:
        """Return how many classes images can be labelled with; 0 if the outputs are no classes."""
        return self.classes if self.task == "classes" else 0

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the class names of the first output; empty if unknown."""
        return self.outputs[0].labels

    @property
    def task(self) -> Task:
        """Return what the first output means."""
        return self.outputs[0].task

    def with_labels(self, labels: tuple[str, ...]) -> NetworkInfo:
        """Return a copy with these class names for the first output."""
        return replace(self, outputs=(replace(self.outputs[0], labels=labels), *self.outputs[1:]))

    @property
    def has_random_weights(self) -> bool:
        """Return whether the weights are random, so that accuracy means nothing."""
        return self.provenance.source == "random"


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
"""The presets of `--ptq`. They take seconds, tens of seconds, minutes (V2, 224 pixels, 2 cores)."""


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
