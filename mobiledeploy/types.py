"""What flows through the pipeline: one frozen type per stage, each the next stage's input.

    ModelSpec ─build▶ FloatModel ─fold▶ FoldedModel ─quantize▶ QuantizedModel ─export▶ Artifact
                                     CalibrationSet ──┘                       ├─parity▶ ParityReport
                                                                              └─bench─▶ Measurement

torch appears in annotations only: importing this module costs nothing.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn
    from torch.export import ExportedProgram

Family = Literal["v1", "v2", "v3-large", "v3-small"]
Format = Literal["onnx", "pte"]
Precision = Literal["fp32", "int8"]
Interpolation = Literal["bilinear", "bicubic", "nearest"]
TableRow = tuple[int | bool | str, ...]

FAMILIES: tuple[Family, ...] = ("v1", "v2", "v3-large", "v3-small")
FORMATS: tuple[Format, ...] = ("pte", "onnx")

FAMILY_ALIASES: Mapping[str, Family] = {"v3": "v3-large"}

INPUT_NAME = "input"
OUTPUT_NAME = "logits"


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

        Whatever departs from the published network is part of it, so that two networks never
        overwrite one another: ``mobilenet_v3_small_0.75_224-slim-head1280-10classes-random``.
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


def _refuse_unknown(values: Mapping[str, object], owner: type[Any], prefix: str) -> None:
    """Raise UsageError for the first key that is not a field of `owner`."""
    known = [option.name for option in fields(owner)]
    for name in values:
        if name not in known:
            raise UsageError(
                f"A model has no field {prefix + str(name)!r}.",
                remedy=f"It has {', '.join(prefix + name for name in known)}.",
            )


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


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedModel:
    """A network without BatchNorm: every BN has become part of the convolution before it."""

    spec: ModelSpec
    module: nn.Module
    provenance: WeightsProvenance
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    labels: tuple[str, ...] = ()
    folded_layers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationSet:
    """Preprocessed images, in order.

    Attributes:
        batches: float32, each (N, C, H, W).
        source: Where they came from, for people: a folder, a file, "embedded".
        sha256: Of the ordered list of the images' own sha256 (before preprocessing).
        labels: Class index per image where the source has them.
        names: One per image, for reports.
    """

    batches: tuple[NDArray[np.float32], ...]
    source: str
    sha256: str
    labels: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Return the number of images."""
        return sum(len(batch) for batch in self.batches)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantRecipe:
    """How the network was quantized: with the spec and the data, all that the result depends on.

    Attributes:
        range_rule: How activation ranges follow from calibration: everything that was seen, or
            searched for the least error of the logits.
        rounding: Of the weights: each to its nearest, or so that a layer's errors cancel.
        weight_scheme: Fixed: int8, symmetric, per output channel.
        activation_scheme: Fixed: int8, affine, per tensor.
    """

    range_rule: Literal["minmax", "searched"] = "searched"
    rounding: Literal["nearest", "cancelling"] = "cancelling"
    weight_scheme: str = "int8 symmetric per-channel"
    activation_scheme: str = "int8 affine per-tensor"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedModel:
    """The one int8 network. ONNX and `.pte` are two encodings of `program`.

    Attributes:
        program: The PT2E-converted graph (quantize/dequantize around float operators).
        encodings: Of every activation, by the name of the operator that produces it.
        recipe: How it was made.
        calibration_sha256: What it was calibrated on.
        int8_macs_share: Share of multiply-accumulates that are computed in int8, 0 to 1.
        encodings_digest: sha256 over all activation encodings and quantized weights.
    """

    spec: ModelSpec
    program: ExportedProgram
    encodings: Mapping[str, Encoding]
    recipe: QuantRecipe
    calibration_sha256: str
    calibration_source: str
    calibration_count: int
    encodings_digest: str
    int8_macs_share: float
    provenance: WeightsProvenance
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that a phone can run.

    Attributes:
        encodings_digest: Of the quantized network; empty for float.
        tool_versions: Package name to version, of everything that shaped the bytes.
    """

    format: Format
    path: Path
    sha256: str
    size_bytes: int
    spec: ModelSpec
    precision: Precision
    encodings_digest: str
    tool_versions: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One comparison: `candidate` held against `reference` on the same images.

    Attributes:
        kind: "format" where equality is promised; "quantization" where loss is measured.
        metrics: By name; directions are in the metrics' own docstrings.
        failures: Why it failed, one sentence each; empty when it passed.
        gated: False where the figures are shown but cannot be judged; `note` says why.
    """

    reference: str
    candidate: str
    kind: Literal["format", "quantization"]
    sample_count: int
    metrics: Mapping[str, float]
    tolerances: Mapping[str, float]
    failures: tuple[str, ...]
    gated: bool = True
    note: str = ""

    @property
    def passed(self) -> bool:
        """Return whether something was compared and nothing failed."""
        return self.sample_count > 0 and not self.failures


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """All rungs for a set of artifacts on one set of images."""

    rungs: tuple[Rung, ...]
    sample_count: int
    data_source: str

    @property
    def passed(self) -> bool:
        """Return whether at least one rung was compared and all of them passed."""
        return self.sample_count > 0 and bool(self.rungs) and all(r.passed for r in self.rungs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Raw times of one artifact on one device, and what follows from them.

    Attributes:
        times_ms: One per counted inference, in the order measured.
        load_ms: From the file to a runner that is ready.
        first_ms: The first inference, which also allocates.
        peak_memory_bytes: Peak resident memory that loading and running added.
        warnings: What makes the figures doubtful, one sentence each.
    """

    artifact: str
    artifact_sha256: str
    runtime: str
    device: str
    threads: int
    warmup: int
    times_ms: tuple[float, ...]
    load_ms: float
    first_ms: float
    peak_memory_bytes: int
    warnings: tuple[str, ...] = ()

    @property
    def median_ms(self) -> float:
        """Return the median latency."""
        return statistics.median(self.times_ms)

    def percentile_ms(self, percent: int) -> float:
        """Return a percentile of the latency (inclusive method), for 1 <= percent <= 99."""
        return statistics.quantiles(self.times_ms, n=100, method="inclusive")[percent - 1]

    @property
    def iqr_ms(self) -> float:
        """Return the interquartile range: the spread of the middle half."""
        return self.percentile_ms(75) - self.percentile_ms(25)
