"""What is known about a network: its input, its outputs, and where its weights came from.

Stages after `build` know no architecture; they read a `NetworkInfo`. All values are frozen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "bilinear-aliased"]
"""How images are resized. Where an image shrinks, the first two and "lanczos" average all pixels
that become one; "nearest" and "bilinear-aliased" read one and four of them."""
Task = Literal["classes", "regression", "embedding", "boxes", "map"]
"""What outputs mean: scores of classes, numbers in units of their own, a vector of features,
coordinates of boxes, or one vector of class scores per place of an image."""

Activation = Literal["none", "softmax", "sigmoid", "normalize", "top5", "codes"]
"""What an artifact returns of an output of the network. Nothing else than its values; in float,
probabilities, vectors of length 1 (L2 normalisation), or the five largest probabilities with their
classes; or the integers themselves, without the last dequantization."""

InputName = Literal[
    "float",
    "rgba-u8",
    "bgra-u8",
    "rgb-u8",
    "gray-u8",
    "rgba-u8-nchw",
    "bgra-u8-nchw",
    "rgb-u8-nchw",
    "gray-u8-nchw",
]
"""Names of input formats, as `export --input` takes them."""

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
        layout: Order of the axes: "NHWC" has the channels of a pixel side by side, "NCHW" a plane
            for each channel.
        order: The channels of a pixel, in memory order; empty for "float", which has the network's.
    """

    name: InputName
    element: Literal["float32", "uint8"]
    layout: Literal["NCHW", "NHWC"]
    order: str = ""

    @property
    def is_pixels(self) -> bool:
        """Return whether the app writes pixels as they are, and the network normalises them."""
        return self.element == "uint8"

    @property
    def planes_axes(self) -> tuple[int, int, int, int]:
        """Return the axes of a batch in this layout in the order that makes it (N, C, H, W)."""
        return (0, 1, 2, 3) if self.layout == "NCHW" else (0, 3, 1, 2)


INPUT_FORMATS: Mapping[InputName, InputFormat] = {
    "float": InputFormat("float", "float32", "NCHW"),
    "rgba-u8": InputFormat("rgba-u8", "uint8", "NHWC", "RGBA"),
    "bgra-u8": InputFormat("bgra-u8", "uint8", "NHWC", "BGRA"),
    "rgb-u8": InputFormat("rgb-u8", "uint8", "NHWC", "RGB"),
    "gray-u8": InputFormat("gray-u8", "uint8", "NHWC", "Y"),
    "rgba-u8-nchw": InputFormat("rgba-u8-nchw", "uint8", "NCHW", "RGBA"),
    "bgra-u8-nchw": InputFormat("bgra-u8-nchw", "uint8", "NCHW", "BGRA"),
    "rgb-u8-nchw": InputFormat("rgb-u8-nchw", "uint8", "NCHW", "RGB"),
    "gray-u8-nchw": InputFormat("gray-u8-nchw", "uint8", "NCHW", "Y"),
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
