"""Model specifications: families, and everything needed to build a network again."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from mobiledeploy.errors import UsageError
from mobiledeploy.network import (
    INPUT_FORMATS,
    Activation,
    ImageSize,
    InputName,
    InputSpec,
    NetworkInfo,
    OutputSpec,
    Preprocessing,
    Task,
    WeightsProvenance,
    describe_size,
    sides_of,
)
from mobiledeploy.utils.visible_text import short_repr

Family = Literal[
    "v1", "v2", "v3-large", "v3-small", "v4-conv-small", "v4-conv-medium", "v4-conv-large"
]
TableRow = tuple[int | bool | str, ...]

FAMILIES: tuple[Family, ...] = get_args(Family)
FAMILY_ALIASES: Mapping[str, Family] = {"v3": "v3-large"}
# Below the int8 SQNR of trained networks of the family, above that of broken ones. V4 was measured
# with random weights only and has the lowest limit of the others.
_EXPECTED_SQNR_DB: Mapping[Family, float] = {
    "v1": 15.0,
    "v2": 13.0,
    "v3-large": 15.0,
    "v3-small": 12.0,
    "v4-conv-small": 12.0,
    "v4-conv-medium": 12.0,
    "v4-conv-large": 12.0,
}
_HYBRID = re.compile(r"(mobilenet_?)?v4[-_]hybrid.*")


def family_named(name: str) -> Family:
    """Return the family with this name or alias.

    Raises:
        UsageError: There is no such family, or it is one of V4's hybrids.
    """
    for family in FAMILIES:
        if family in (name, FAMILY_ALIASES.get(name)):
            return family
    if _HYBRID.fullmatch(name):
        raise UsageError(
            f"{name} has attention layers, which are not supported.",
            remedy="Choose a convolutional V4: v4-conv-small, v4-conv-medium or v4-conv-large.",
        )
    remedy = f"Choose one of {', '.join((*FAMILIES, *FAMILY_ALIASES))}."
    if name.endswith(".py"):
        remedy = f"Name the callable that returns the network, for example {name}:create."
    raise UsageError(f"There is no model {name!r}.", remedy=remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchitectureOptions:
    """Differences from a family's published architecture; the defaults are the paper's.

    Building a network with an option that its family does not have raises an error.

    Attributes:
        rows: A row table that replaces the paper's, in its column order: V1 (c, s); V2 (t, c, n,
            s); V3 (k, exp, out, SE, NL, s) with NL "RE" or "HS"; V4 (block, k1, k2, exp, out, s)
            with block "Conv", "FusedIB" or "UIB".
        activation: V1: "relu6", as in every trained release, or "relu", as in the paper.
        kernels_per_layer: V1: depthwise filters per input channel.
        round_nearest: V2: channel counts are multiples of this.
        width_rule: V3: effect of the width multiplier. "torchvision" scales every column of the
            table and the head; "slim" (TF-slim, the paper's sizes) expands by the ratio exp / in
            from the rounded input width and never narrows the head.
        stem_width: Channels of the first convolution; None scales the paper's by the width.
        stem_stride: Stride of the first convolution: 2, or 1 as in networks for small images.
        head_width: V2, V3 and V4: channels before the classifier (V3: at width 1, then scaled by
            the width rule); None is the paper's, 1024 for V3-Small.
        hidden_width: V3: channels before the classifier, not scaled; None scales `head_width`.
        dilated: V3: the last three blocks have dilation 2 instead of a stride (segmentation).
        reduced_tail: V3: the last three blocks and the head have half the width (segmentation).
        head: What follows the pooled features, in place of the published classifier: see
            `mobiledeploy.models.head`. It decides the number of outputs.
        se_gate: V3: "hard-sigmoid" as published, or "sigmoid" with BatchNorm inside the squeeze.
        norm: V1 and V2: "batch", or "none" for convolutions with biases in place of BatchNorm.
        norm_eps: BatchNorm's epsilon; None is the value of the family's trained weights.
        padding: "symmetric", or "same" as in TensorFlow (asymmetric at stride 2).
    """

    rows: tuple[TableRow, ...] | None = None
    activation: Literal["relu", "relu6"] = "relu6"
    kernels_per_layer: int = 1
    round_nearest: int = 8
    width_rule: Literal["torchvision", "slim"] = "torchvision"
    stem_width: int | None = None
    stem_stride: int = 2
    head_width: int | None = None
    hidden_width: int | None = None
    dilated: bool = False
    reduced_tail: bool = False
    head: str | None = None
    se_gate: Literal["hard-sigmoid", "sigmoid"] = "hard-sigmoid"
    norm: Literal["batch", "none"] = "batch"
    norm_eps: float | None = None
    padding: Literal["symmetric", "same"] = "symmetric"

    @property
    def changed(self) -> dict[str, object]:
        """Return the options that differ from the published architecture, by name."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {name: value for name, value in values.items() if value != _AS_PUBLISHED[name]}

    @property
    def tags(self) -> tuple[str, ...]:
        """Return one word per changed option, for file names: ``("slim", "head1280")``."""
        return tuple(_option_tag(name, value) for name, value in self.changed.items())


_AS_PUBLISHED = {option.name: option.default for option in fields(ArchitectureOptions)}


def _option_tag(name: str, value: object) -> str:
    """Return a short word for one changed option and its value."""
    if name == "rows":  # a fingerprint, because the table is too long for a file name
        return "rows" + hashlib.sha256(repr(value).encode()).hexdigest()[:8]
    if name == "head":
        return "head-" + str(value).replace(":", "").replace(",", "-")
    if isinstance(value, bool):
        return name.replace("_", "-")
    if name == "norm":
        return "no-norm"
    if isinstance(value, str):
        return value
    prefixes = {
        "kernels_per_layer": "kernels",
        "norm_eps": "eps",
        "round_nearest": "round",
        "stem_stride": "stem-stride",
    }
    return f"{prefixes.get(name, name.removesuffix('_width'))}{value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything that is needed to build a network again.

    Attributes:
        family: The architecture.
        width: Width multiplier (alpha in the MobileNet paper, section 3.3).
        resolution: Size of the input in pixels, the side of a square or (height, width); rho in
            section 3.4, as a size.
        num_classes: Outputs of the classifier; 0 omits it (a feature extractor).
        in_channels: Channels of the input image.
        input: What artifacts take: "float", normalised planes, or the name of a pixel format.
        weights: "imagenet", "random", or the path of a checkpoint.
        seed: Seed of the initialisation; identifies the network if its weights are random.
        dropout: Dropout probability before the classifier; without effect in inference.
        task: What the outputs mean; None is `default_task`.
        activation: What artifacts compute from the logits of the first output.
        architecture: Differences from the published architecture.
    """

    family: Family
    width: float = 1.0
    resolution: ImageSize = 224
    num_classes: int = 1000
    in_channels: int = 3
    input: InputName = "float"
    weights: str = "imagenet"
    seed: int = 0
    dropout: float = 0.2
    task: Task | None = None
    activation: Activation = "none"
    architecture: ArchitectureOptions = ArchitectureOptions()

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ModelSpec:
        """Read a specification from the mapping that `dataclasses.asdict` gives.

        Omitted fields have their defaults.

        Raises:
            UsageError: A field is unknown, or the family is missing.
        """
        values = dict(document)
        options = values.pop("architecture", None) or {}
        if not isinstance(options, Mapping):
            raise UsageError(
                f"architecture is {short_repr(options)}; expected a mapping of options."
            )
        _refuse_unknown(values, cls, "")
        _refuse_unknown(options, ArchitectureOptions, "architecture.")
        if "family" not in values:
            raise UsageError("A model needs a family.", remedy=f"Add one of {', '.join(FAMILIES)}.")
        if isinstance(values.get("resolution"), list):
            height, width = (*values["resolution"], None, None)[:2]
            values["resolution"] = height if height == width else tuple(values["resolution"])
        rows = options.get("rows")
        if isinstance(rows, list):
            frozen = tuple(tuple(row) if isinstance(row, list) else row for row in rows)
            options = {**options, "rows": frozen}
        return cls(**values, architecture=ArchitectureOptions(**options))

    @property
    def name(self) -> str:
        """Return the stem of artifact names, for example ``mobilenet_v2_1.0_224``.

        Every difference from the published network is part of the name, so that artifacts of two
        architectures never overwrite each other:
        ``mobilenet_v3_small_0.75_224-slim-head1280-10classes-random``.
        """
        family = self.family.replace("-", "_")
        tags = [
            f"mobilenet_{family}_{float(self.width)}_{describe_size(self.resolution)}",
            *self.architecture.tags,
        ]
        if self.num_classes != 1000 and self.architecture.head is None:
            tags.append(f"{self.num_classes}classes" if self.num_classes else "features")
        if self.in_channels != 3:
            tags.append(f"{self.in_channels}channels")
        if self.weights == "random":
            tags.append("random" if self.seed == 0 else f"random{self.seed}")
        if self.input != "float":
            tags.append(self.input)
        if self.activation != "none":
            tags.append(self.activation)
        return "-".join(tags)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Return the shape of a batch of one: (1, C, H, W)."""
        return (1, self.in_channels, *sides_of(self.resolution))

    def network_info(
        self,
        provenance: WeightsProvenance,
        preprocessing: Preprocessing,
        labels: tuple[str, ...] = (),
    ) -> NetworkInfo:
        """Return the `NetworkInfo` of the network that this specification builds."""
        return NetworkInfo(
            name=self.name,
            architecture=self.family,
            input=InputSpec(
                channels=self.in_channels,
                height=sides_of(self.resolution)[0],
                width=sides_of(self.resolution)[1],
                preprocessing=preprocessing,
                format=INPUT_FORMATS[self.input],
            ),
            outputs=(
                OutputSpec(
                    size=self.num_classes,
                    labels=labels,
                    task=self.task or default_task(self.num_classes),
                ).with_activation(self.activation),
            ),
            provenance=provenance,
            source=asdict(self),
            expected_sqnr_db=_EXPECTED_SQNR_DB[self.family],
        )


def default_task(num_classes: int) -> Task:
    """Return what outputs mean where nothing is said about it.

    One number is no choice between classes, and the features of a network without a classifier are
    an embedding.
    """
    if num_classes == 0:
        return "embedding"
    return "regression" if num_classes == 1 else "classes"


def _refuse_unknown(values: Mapping[str, object], owner: type[Any], prefix: str) -> None:
    """Raise UsageError for the first key that is not a field of `owner`."""
    known = [option.name for option in fields(owner)]
    for name in values:
        if name not in known:
            raise UsageError(
                f"A model has no field {prefix + str(name)!r}.",
                remedy=f"It has {', '.join(prefix + name for name in known)}.",
            )
