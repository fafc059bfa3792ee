"""What flows through the pipeline: one frozen type per stage, each the next stage's input.

    ModelSpec ─build▶ FloatModel ─fold▶ FoldedModel ─quantize▶ QuantizedModel ─export▶ Artifact
                                     CalibrationSet ──┘                       ├─parity▶ ParityReport
                                                                              └─bench─▶ Measurement

torch appears in annotations only: importing this module costs nothing.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn
    from torch.export import ExportedProgram

Family = Literal["v1", "v2", "v3-large", "v3-small"]
Format = Literal["onnx", "pte"]
Precision = Literal["fp32", "int8"]
Interpolation = Literal["bilinear", "bicubic", "nearest"]

FAMILIES: tuple[Family, ...] = ("v1", "v2", "v3-large", "v3-small")
FORMATS: tuple[Format, ...] = ("pte", "onnx")

INPUT_NAME = "input"
OUTPUT_NAME = "logits"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which network: everything that is needed to build it again.

    Attributes:
        family: Which paper.
        width: Width multiplier (alpha in the MobileNet paper, section 3.3).
        resolution: Side of the square input in pixels (rho, section 3.4, as a size).
        num_classes: Outputs of the classifier.
        in_channels: Channels of the input image.
        weights: "imagenet", "random", or the path of a checkpoint.
        seed: Seeds the initialisation; part of the identity where weights are random.
        dropout: Probability before the classifier; inert at inference.
    """

    family: Family
    width: float = 1.0
    resolution: int = 224
    num_classes: int = 1000
    in_channels: int = 3
    weights: str = "imagenet"
    seed: int = 0
    dropout: float = 0.2

    @property
    def name(self) -> str:
        """Return the stem of artifact names, for example ``mobilenet_v2_1.0_224``."""
        tag = "-random" if self.weights == "random" else ""
        return f"mobilenet_{self.family.replace('-', '_')}_{self.width}_{self.resolution}{tag}"

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Return the shape of a batch of one: (1, C, H, W)."""
        return (1, self.in_channels, self.resolution, self.resolution)


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
        range_rule: How activation ranges follow from calibration.
        weight_scheme: Fixed: int8, symmetric, per output channel.
        activation_scheme: Fixed: int8, affine, per tensor.
    """

    range_rule: Literal["minmax", "image-mean"] = "image-mean"
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
