"""Which network: families, and all that is needed to build one again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from mobiledeploy.errors import UsageError
from mobiledeploy.network import (
    InputSpec,
    NetworkInfo,
    OutputSpec,
    Preprocessing,
    WeightsProvenance,
)

Family = Literal["v1", "v2", "v3-large", "v3-small"]
TableRow = tuple[int | bool | str, ...]

FAMILIES: tuple[Family, ...] = ("v1", "v2", "v3-large", "v3-small")
FAMILY_ALIASES: Mapping[str, Family] = {"v3": "v3-large"}
# Below what trained networks of the family reach in int8, above what broken ones do: docs/parity.md
_EXPECTED_SQNR_DB: Mapping[Family, float] = {
    "v1": 15.0,
    "v2": 13.0,
    "v3-large": 15.0,
    "v3-small": 12.0,
}


def family_named(name: str) -> Family:
    """Return the family that a person means: its name, or an alias of it.

    Raises:
        UsageError: there is no such family.
    """
    for family in FAMILIES:
        if family in (name, FAMILY_ALIASES.get(name)):
            return family
    raise UsageError(
        f"There is no model {name!r}.",
        remedy=f"Choose one of {', '.join((*FAMILIES, *FAMILY_ALIASES))}.",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchitectureOptions:
    """Departures from a family's architecture as published; the defaults are the paper's.

    An option that a family does not have is refused when the network is built.

    Attributes:
        rows: A row table in place of the paper's, in its column order: V1 (c, s); V2 (t, c, n, s);
            V3 (k, exp, out, SE, NL, s) with NL "RE" or "HS".
        activation: Of V1: "relu6", as in every trained release, or "relu", as in the paper.
        kernels_per_layer: Of V1: depthwise filters per input channel.
        round_nearest: Of V2: channel counts are multiples of this.
        width_rule: Of V3: how the width multiplier acts. "torchvision" scales every column of the
            table and the head; "slim" (TF-slim, whose sizes the paper's tables give) expands by the
            ratio exp / in from the rounded input width and never narrows the head.
        stem_width: Channels of the first convolution; None scales the paper's by the width.
        head_width: Of V2 and V3: channels before the classifier (of V3 at width 1, then scaled by
            the rule); None is the paper's, 1024 for V3-Small.
        dilated: Of V3: the last three blocks dilate by 2 instead of striding (for segmentation).
        reduced_tail: Of V3: the last three blocks and the head at half width (for segmentation).
        se_gate: Of V3: "hard-sigmoid" as published, or "sigmoid" with BN inside the squeeze.
        norm_eps: BatchNorm's epsilon; None is what the family's trained weights assume.
        padding: "symmetric", or "same" as TensorFlow pads (asymmetric at stride 2).
    """

    rows: tuple[TableRow, ...] | None = None
    activation: Literal["relu", "relu6"] = "relu6"
    kernels_per_layer: int = 1
    round_nearest: int = 8
    width_rule: Literal["torchvision", "slim"] = "torchvision"
    stem_width: int | None = None
    head_width: int | None = None
    dilated: bool = False
    reduced_tail: bool = False
    se_gate: Literal["hard-sigmoid", "sigmoid"] = "hard-sigmoid"
    norm_eps: float | None = None
    padding: Literal["symmetric", "same"] = "symmetric"

    @property
    def changed(self) -> dict[str, object]:
        """Return the options that depart from the published architecture, by name."""
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {name: value for name, value in values.items() if value != _AS_PUBLISHED[name]}

    @property
    def tags(self) -> tuple[str, ...]:
        """Return one word per changed option, for names of files: ``("slim", "head1280")``."""
        return tuple(_option_tag(name, value) for name, value in self.changed.items())


_AS_PUBLISHED = {option.name: option.default for option in fields(ArchitectureOptions)}


def _option_tag(name: str, value: object) -> str:
    """Return a short word that names one changed option and its value."""
    if name == "rows":  # too long to spell out: equal tables, and only those, share a fingerprint
        return "rows" + hashlib.sha256(repr(value).encode()).hexdigest()[:8]
    if isinstance(value, bool):
        return name.replace("_", "-")
    if isinstance(value, str):
        return value
    prefixes = {"kernels_per_layer": "kernels", "round_nearest": "round", "norm_eps": "eps"}
    return f"{prefixes.get(name, name.removesuffix('_width'))}{value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which network: everything that is needed to build it again.

    Attributes:
        family: Which paper.
        width: Width multiplier (alpha in the MobileNet paper, section 3.3).
        resolution: Side of the square input in pixels (rho, section 3.4, as a size).
        num_classes: Outputs of the classifier; 0 leaves it out (a feature extractor).
        in_channels: Channels of the input image.
        weights: "imagenet", "random", or the path of a checkpoint.
        seed: Seeds the initialisation; part of the identity where weights are random.
        dropout: Probability before the classifier; inert at inference.
        architecture: Departures from the published architecture.
    """

    family: Family
    width: float = 1.0
    resolution: int = 224
    num_classes: int = 1000
    in_channels: int = 3
    weights: str = "imagenet"
    seed: int = 0
    dropout: float = 0.2
    architecture: ArchitectureOptions = ArchitectureOptions()

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ModelSpec:
        """Read what `dataclasses.asdict` wrote as JSON or YAML; what is left out has its default.

        Raises:
            UsageError: a field is unknown, or the family is missing.
        """
        values = dict(document)
        options = values.pop("architecture", None) or {}
        if not isinstance(options, Mapping):
            raise UsageError(f"architecture is {options!r}; it has to be a mapping of options.")
        _refuse_unknown(values, cls, "")
        _refuse_unknown(options, ArchitectureOptions, "architecture.")
        if "family" not in values:
            raise UsageError("A model needs a family.", remedy=f"Add one of {', '.join(FAMILIES)}.")
        rows = options.get("rows")
        if isinstance(rows, list):
            frozen = tuple(tuple(row) if isinstance(row, list) else row for row in rows)
            options = {**options, "rows": frozen}
        return cls(**values, architecture=ArchitectureOptions(**options))

    @property
    def name(self) -> str:
        """Return the stem of artifact names, for example ``mobilenet_v2_1.0_224``.

        Whatever departs from the published network is part of it, so that two architectures never
        overwrite one another: ``mobilenet_v3_small_0.75_224-slim-head1280-10classes-random``. Of
        two checkpoints of one architecture, the later does.
        """
        family = self.family.replace("-", "_")
        tags = [
            f"mobilenet_{family}_{float(self.width)}_{self.resolution}",
            *self.architecture.tags,
        ]
        if self.num_classes != 1000:
            tags.append(f"{self.num_classes}classes" if self.num_classes else "features")
        if self.in_channels != 3:
            tags.append(f"{self.in_channels}channels")
        if self.weights == "random":
            tags.append("random" if self.seed == 0 else f"random{self.seed}")
        return "-".join(tags)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Return the shape of a batch of one: (1, C, H, W)."""
        return (1, self.in_channels, self.resolution, self.resolution)

    def network_info(
        self,
        provenance: WeightsProvenance,
        preprocessing: Preprocessing,
        labels: tuple[str, ...] = (),
    ) -> NetworkInfo:
        """Return what the later stages know about the network that this specification builds."""
        return NetworkInfo(
            name=self.name,
            architecture=self.family,
            input=InputSpec(
                channels=self.in_channels,
                height=self.resolution,
                width=self.resolution,
                preprocessing=preprocessing,
            ),
            outputs=(OutputSpec(size=self.num_classes, labels=labels),),
            provenance=provenance,
            source=asdict(self),
            expected_sqnr_db=_EXPECTED_SQNR_DB[self.family],
        )


def _refuse_unknown(values: Mapping[str, object], owner: type[Any], prefix: str) -> None:
    """Raise UsageError for the first key that is not a field of `owner`."""
    known = [option.name for option in fields(owner)]
    for name in values:
        if name not in known:
            raise UsageError(
                f"A model has no field {prefix + str(name)!r}.",
                remedy=f"It has {', '.join(prefix + name for name in known)}.",
            )
