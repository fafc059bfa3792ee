"""Results of the parity ladder. Every report (terminal, JSON, JUnit, Markdown, HTML) renders these.

The ladder is a sequence of rungs. A rung is one stage on the way from the float network to the
device (float, BatchNorm folded, ..., ONNX Runtime, ExecuTorch, device). All rungs run on the same
images; each is compared with the rungs below it.

The classes are pydantic models: `json_report` writes them as JSON, `parity.schema.json` is their
schema, and `baseline` reads them back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PlainSerializer, computed_field, with_config
from typing_extensions import TypedDict

from mobiledeploy.artifact.artifact import Precision
from mobiledeploy.network import Interpolation, Task
from mobiledeploy.utils.json_model import JsonFloat, JsonModel

SCHEMA: Literal[4] = 4

RungName = Literal[
    "float",
    "fold",
    "equalize",
    "integers",
    "any-rounding",
    "onnx-unoptimized",
    "onnx",
    "pte",
    "tflite",
    "device",
]
Text = Annotated[str, Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
NonNegative = Annotated[float, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0), PlainSerializer(lambda seconds: round(seconds, 3), float)]


def _exactly(schema: dict[str, Any]) -> None:
    """Require all properties of a JSON schema, and no others."""
    schema |= {"additionalProperties": False, "required": list(schema["properties"])}


class _Model(JsonModel):
    """A `JsonModel` that writes all of its keys, and whose schema allows no others."""

    # pydantic's own setting for the former would require all keys of `Metrics` as well
    model_config = ConfigDict(
        json_schema_extra=_exactly, json_schema_serialization_defaults_required=False
    )


@with_config(ConfigDict(extra="forbid"))
class Metrics(TypedDict, total=False):
    """How far one set of logits is from another; see `mobiledeploy.metrics`.

    `logits` counts the compared logits. `_low` and `_high` are the ends of 95% confidence
    intervals. `flips` counts images whose top-1 class changed. Steps are those of int8 logits.
    `constant_outputs` counts outputs that are the same for all images; `lowest_output` is the index
    of the one with the lowest SQNR by itself.

    Absent are `sqnr_db` if nothing varies between the images, what belongs to classes if the
    outputs are none, what belongs to single outputs unless they are a regression, cosines of zero
    vectors, and steps of float logits. `mean_iou` is that of maps, `rms_error` that of regressions
    and boxes, in their units.

    Of several outputs together there are the counts and the differences, and the lowest `sqnr_db`.
    """

    differing_logits: NonNegative
    logits: Annotated[float, Field(ge=1)]
    sqnr_db: JsonFloat
    top1_agreement: Share
    top1_agreement_low: Share
    top1_agreement_high: Share
    top5_agreement: Share
    top5_agreement_low: Share
    top5_agreement_high: Share
    flips: NonNegative
    worst_flip_margin: NonNegative
    margin_weighted_flips: NonNegative
    kl_divergence: float
    max_abs_difference: NonNegative
    mean_abs_difference: NonNegative
    cosine_similarity: float
    mean_cosine_similarity: float
    mean_iou: Share
    rms_error: NonNegative
    constant_outputs: NonNegative
    lowest_output: NonNegative
    lowest_output_sqnr_db: JsonFloat
    max_steps_apart: NonNegative
    mean_steps_apart: NonNegative


class OutputComparison(_Model):
    """One of several outputs of a rung, compared with that of another rung.

    Attributes:
        name: Name of the output.
        task: What it means.
        metrics: Empty where the two cannot be compared.
        limits: What is required of this output, as in `Comparison`.
    """

    name: str
    task: Task
    metrics: Metrics
    limits: Mapping[Annotated[str, Field(pattern="^(min|max)_")], float]


class Comparison(_Model):
    """A rung's logits compared with those of another rung, on the same images.

    Attributes:
        reference: The rung that it is compared with.
        images: "data" for the user's images, "calibration" for some of the calibration images.
        metrics: Empty where the two cannot be compared.
        limits: What is required, as "min_NAME" or "max_NAME" of a metric. Empty where the metrics
            are shown for information only.
        failures: Why it failed, one sentence each; empty if it passed.
        outputs: The outputs one by one, if there are several.
    """

    reference: RungName
    images: Literal["data", "calibration"] = "data"
    metrics: Metrics
    limits: Mapping[Annotated[str, Field(pattern="^(min|max)_")], float]
    failures: tuple[Text, ...] = ()
    outputs: tuple[OutputComparison, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures


class Rung(_Model):
    """One stage on the way from the float network to the device.

    Attributes:
        name: The stage.
        title: The stage in words, for example "BatchNorm folded".
        artifact: Name of the file that was run; empty for the stages before export.
        accuracy: Top-1 accuracy; None without labels.
        note: Why the metrics have no limits here; empty where limits apply.
        first_differing_layer: The first layer that does not compute what the integer reference
            does; empty where none was found.
        failures: Everything that failed, comparisons included, one sentence each.
        comparisons: With the rung below, with the rung it must equal, and with float.
        seconds: Time to run and compare.
    """

    name: RungName
    title: str
    artifact: str = ""
    accuracy: Share | None = None
    note: str = ""
    first_differing_layer: str = ""
    failures: tuple[Text, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    seconds: Seconds = 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether nothing failed, in the rung or in one of its comparisons."""
        return not self.failures and all(comparison.passed for comparison in self.comparisons)

    def against(self, reference: RungName) -> Comparison | None:
        """Return the comparison with `reference` on the user's images, if there is one."""
        return next(
            (c for c in self.comparisons if c.reference == reference and c.images == "data"), None
        )


class DataUsed(_Model):
    """The images that were compared.

    Attributes:
        source: A folder, a file, or "embedded" for the images in the package.
        count: Number of images.
        sha256: Digest of the ordered list of the images' own digests; it identifies the set.
        labelled: Whether their classes are known.
        calibration: Whether the network was calibrated with them, which makes it look better.
    """

    source: str
    count: Annotated[int, Field(ge=0)]
    sha256: str
    labelled: bool
    calibration: bool


class LayerNoise(_Model):
    """Quantization noise of one layer, over all images that were measured.

    Attributes:
        name: Module and operator, for example "features.3.conv.2 conv2d".
        sqnr_db: SQNR of the layer's output against the float network: all noise up to here.
        own_sqnr_db: SQNR against the float layer on the same quantized inputs: its own noise.
        sqnr_drop_db: SQNR of the layer's noisiest input minus `sqnr_db`.
    """

    name: str
    sqnr_db: JsonFloat
    own_sqnr_db: JsonFloat
    sqnr_drop_db: JsonFloat


class Prediction(_Model):
    """A class and its softmax probability."""

    label: str
    probability: Share


class WorstImage(_Model):
    """An image on which the last rung is far from float.

    Attributes:
        name: File name, or position in the set.
        margin: Float's logit of its own top-1 class minus that of the last rung's top-1 class; 0
            where both agree.
        kl_divergence: KL divergence of the last rung's softmax from float's, in nats.
        label: The true class; empty where it is unknown.
        float_top5: Float's five most probable classes, in order.
        top5: Those of the last rung.
        thumbnail: A small picture of the network's input (WebP); not part of the JSON.
    """

    name: str
    margin: NonNegative
    kl_divergence: float
    label: str
    float_top5: tuple[Prediction, ...]
    top5: tuple[Prediction, ...]
    thumbnail: Annotated[bytes, Field(exclude=True)] = b""


class ResizeEffect(_Model):
    """What another way to resize the images would change in the float network's outputs.

    Attributes:
        interpolation: The other way.
        mean_pixel_difference: Mean absolute difference of the resized pixels, of 255.
        sqnr_db: SQNR of the outputs, the lowest of several; None if nothing varies.
        top1_agreement: Share of images with the same top-1 class; None if there are no classes.
    """

    interpolation: Interpolation
    mean_pixel_difference: NonNegative
    sqnr_db: JsonFloat | None
    top1_agreement: Share | None


class ComparedArtifact(_Model):
    """An artifact that was run.

    Attributes:
        file: Its name, without folder.
        sha256: Digest of its bytes.
        size_bytes: Its size.
        runtime: Name and version of the runtime.
    """

    file: Text
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=1)]
    runtime: str


class ParityReport(_Model):
    """The ladder of the artifacts of one network on one set of images.

    Attributes:
        network: Its name, for example "mobilenet_v2_1.0_224".
        precision: What the artifacts compute in.
        task: What the outputs mean.
        float_bytes: Size of the network's float32 weights, BatchNorm folded; 0 where unknown.
        data: The images.
        device: Where the rungs "device" ran; empty where there are none.
        artifacts: What was run, in the order of its rungs.
        rungs: From float upwards.
        regressions: What is worse than in the baseline; None where no baseline was given.
        layers: In topological order; empty where they were not measured.
        first_noisy_layer: The first layer whose own noise is too high; empty where none is.
        worst_images: The worst first; empty where they were not requested, or the outputs are no
            classes.
        resizes: What other ways to resize would change; empty where it was not measured.
    """

    schema_version: Annotated[Literal[4], Field(alias="schema")] = SCHEMA
    kind: Literal["mobiledeploy.parity"] = "mobiledeploy.parity"
    network: Text
    precision: Precision
    task: Task = "classes"
    float_bytes: Annotated[int, Field(ge=0)] = 0
    data: DataUsed
    device: str = ""
    artifacts: tuple[ComparedArtifact, ...]
    rungs: Annotated[tuple[Rung, ...], Field(min_length=1)]
    regressions: tuple[Text, ...] | None = None
    layers: tuple[LayerNoise, ...] = ()
    first_noisy_layer: str = ""
    worst_images: tuple[WorstImage, ...] = ()
    resizes: tuple[ResizeEffect, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether an artifact was compared, all rungs passed, and nothing got worse."""
        compared = any(rung.artifact and rung.comparisons for rung in self.rungs)
        good = all(rung.passed for rung in self.rungs) and not self.regressions
        return self.data.count > 0 and compared and good

    @computed_field  # type: ignore[prop-decorator]
    @property
    def first_failure(self) -> RungName | None:
        """Name of the lowest rung that failed."""
        failed = self.first_failed_rung
        return None if failed is None else failed.name

    @property
    def first_failed_rung(self) -> Rung | None:
        """Return the lowest rung that failed: where to look first."""
        return next((rung for rung in self.rungs if not rung.passed), None)
