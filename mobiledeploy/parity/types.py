"""What the parity ladder found: rungs, layers, images; the one object that every report renders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mobiledeploy.artifact.artifact import Precision

RungName = Literal[
    "float", "fold", "equalize", "integers", "onnx-as-written", "onnx", "pte", "device"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A rung's logits held against those of another network, on the same images.

    Attributes:
        reference: The rung that it is held against.
        images: "data" are those that the user gave, "calibration" some that the network was
            calibrated with.
        metrics: By name; directions are in the docstrings of `verify.metrics`.
        limits: What is demanded: "min_NAME" or "max_NAME" of a metric. Empty where the figures are
            shown and not judged.
        failures: Why it failed, one sentence each; empty when it passed.
    """

    reference: RungName
    images: Literal["data", "calibration"] = "data"
    metrics: Mapping[str, float]
    limits: Mapping[str, float]
    failures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One step from the float network towards the phone.

    Attributes:
        name: Which step.
        title: For people, for example "BatchNorm folded".
        artifact: The file that was run; empty for the stages before export.
        comparisons: With the rung below, with what the contract demands, with float.
        failures: What failed beyond the comparisons: logits that are not finite, a layer that
            computes something else.
        first_layer: The first layer that differs from the integer reference, where one does.
        note: Why figures are shown but not judged; empty where they are judged.
        accuracy: Share of labelled images whose top class is right; None without labels.
        seconds: That running and comparing took.
    """

    name: RungName
    title: str
    artifact: str = ""
    comparisons: tuple[Comparison, ...] = ()
    failures: tuple[str, ...] = ()
    first_layer: str = ""
    note: str = ""
    accuracy: float | None = None
    seconds: float = 0.0

    @property
    def all_failures(self) -> tuple[str, ...]:
        """Return why the rung failed, one sentence each."""
        return (*self.failures, *(text for c in self.comparisons for text in c.failures))

    @property
    def passed(self) -> bool:
        """Return whether nothing failed."""
        return not self.all_failures

    def against(self, reference: RungName) -> Comparison | None:
        """Return the comparison with `reference` on the user's images, if there is one."""
        return next(
            (c for c in self.comparisons if c.reference == reference and c.images == "data"), None
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataUsed:
    """The images that were compared.

    Attributes:
        source: A folder, a file, or "embedded".
        count: How many.
        sha256: Of the ordered list of their own sha256: the same images, or others?
        labelled: Whether their classes are known.
        calibration: Whether the network was calibrated with them, so that it suits them.
    """

    source: str
    count: int
    sha256: str
    labelled: bool
    calibration: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerError:
    """What quantization does to one layer, over all images that were looked at.

    Attributes:
        name: The module and what it computes, for example "features.3.conv.2 conv2d".
        sqnr_db: Of the layer's output against the float network's: all noise up to here.
        own_sqnr_db: Against the float layer on the same quantized inputs: its own noise only.
        gained_db: By how much the layer lowers the SQNR below the worst of its inputs'.
    """

    name: str
    sqnr_db: float
    own_sqnr_db: float
    gained_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A class and its softmax probability."""

    label: str
    probability: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageError:
    """One image, as float and as the last rung see it.

    Attributes:
        margin: By how much float's first class leads the one that the last rung prefers; 0 where
            the two agree.
        kl_divergence: Of the last rung's softmax from float's, in nats.
        truth: The label, where it is known.
        float_top: Float's first five classes, the surest first.
        top: The last rung's.
        thumbnail: A small picture of the network's input (WebP).
    """

    name: str
    margin: float
    kl_divergence: float
    truth: str
    float_top: tuple[Guess, ...]
    top: tuple[Guess, ...]
    thumbnail: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """An artifact that was run.

    Attributes:
        file: Its name, without folder.
        runtime: What ran it, with version.
    """

    file: str
    sha256: str
    size_bytes: int
    runtime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityReport:
    """The whole ladder, for the artifacts of one network on one set of images.

    Attributes:
        network: Its name, for example ``mobilenet_v2_1.0_224``.
        device: Where the rungs `device` ran; empty where there are none.
        rungs: From float upwards.
        layers: In topological order; empty where they were not asked for.
        first_bad_layer: The first one that loses too much by itself; empty where none does.
        worst_images: The worst first; empty where they were not asked for.
        regressions: What is worse than in the baseline; None where there was none to compare with.
    """

    network: str
    precision: Precision
    data: DataUsed
    artifacts: tuple[Compared, ...]
    rungs: tuple[Rung, ...]
    device: str = ""
    layers: tuple[LayerError, ...] = ()
    first_bad_layer: str = ""
    worst_images: tuple[ImageError, ...] = ()
    regressions: tuple[str, ...] | None = None

    @property
    def passed(self) -> bool:
        """Return whether something was compared, every rung passed, and nothing got worse."""
        compared = any(rung.artifact and rung.comparisons for rung in self.rungs)
        good = all(rung.passed for rung in self.rungs) and not self.regressions
        return self.data.count > 0 and compared and good

    @property
    def first_failure(self) -> Rung | None:
        """Return the lowest rung that failed: where to look first."""
        return next((rung for rung in self.rungs if not rung.passed), None)
