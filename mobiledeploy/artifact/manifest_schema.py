"""The JSON document of a manifest: its fields, and what a valid one holds.

`manifest.schema.json` beside this module is generated from `ManifestDocument`. Only `upgrade` knows
how manifests of older versions differ.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Tag,
    model_validator,
)

from mobiledeploy.artifact.artifact import Format, Precision
from mobiledeploy.models.code_spec import CodeSpec
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import Preprocessing, WeightsProvenance, sides_of
from mobiledeploy.stages import Encoding, QuantRecipe
from mobiledeploy.utils.json_model import UNION_TAGS, JsonFloat, JsonModel

SCHEMA = 2
READABLE_SCHEMAS = (1, SCHEMA)
_SQNR_OF_VARIATION = 4  # schema of parity reports

# Names of schema 1 for values of `recipe`.
_SCHEMA_1_VALUES = {"even": "cross-layer", "given": "none", "cancelling": "gptq"}


class _Record(JsonModel):
    """A part of a manifest. Fields that do not apply are absent."""

    model_config = ConfigDict(
        allow_inf_nan=False, json_schema_serialization_defaults_required=False
    )


def _kind_of_spec(value: object) -> str:
    from_code = "code" in value if isinstance(value, dict) else isinstance(value, CodeSpec)
    return UNION_TAGS[from_code]


_Spec = Annotated[
    Annotated[ModelSpec, Tag(UNION_TAGS[False])] | Annotated[CodeSpec, Tag(UNION_TAGS[True])],
    Discriminator(_kind_of_spec),
]


class ArtifactRecord(_Record):
    """The artifact that the manifest describes."""

    file: str = Field(description="Name of the artifact, in the folder of the manifest.")
    format: Format
    sha256: str = Field(description="sha256 of the artifact, in hex.")
    size_bytes: NonNegativeInt


class WeightsRecord(_Record):
    """Where the weights came from."""

    source: Literal["imagenet", "random", "file", "code"]
    origin: str = Field(description="URL, package or path; the seed of random weights.")
    sha256: str | None = Field(None, description="sha256 of the checkpoint; null if random.")
    dialect: str = Field("", description='Naming scheme of the tensors, e.g. "torchvision".')
    notes: tuple[str, ...] = Field((), description="What was inferred from the tensors.")
    from_manifest: str | None = Field(
        None, description="Path of the checkpoint, relative to the manifest's folder."
    )


class CalibrationRecord(_Record):
    """The calibration images."""

    source: str = Field(description='Path of the images, or "embedded".')
    from_manifest: str | None = Field(
        None, description="Path of the images, relative to the manifest's folder."
    )
    count: PositiveInt
    sha256: str = Field(description="sha256 of the ordered list of the images' own sha256.")


class EncodingRecord(_Record):
    """The encoding of one activation."""

    scale: PositiveFloat
    zero_point: int
    layer: str = Field("", description="The module that computes it; empty for the input.")

    @property
    def encoding(self) -> Encoding:
        """Return the encoding without the layer."""
        return Encoding(scale=self.scale, zero_point=self.zero_point)


class FloatIslandRecord(_Record):
    """An operator that computes in float."""

    name: str
    operator: str
    elements: int
    macs: int


class CoverageRecord(_Record):
    """How much of the network computes in int8, counted from the artifact."""

    counted_in: str = Field(description="The graph that was counted.")
    macs: int = Field(description="Multiply-accumulates for one image.")
    int8_macs: int
    macs_share: float = Field(description="int8_macs / macs.")
    activation_elements: int
    int8_activation_elements: int
    activation_elements_share: float
    float_islands: tuple[FloatIslandRecord, ...]


class ParityImagesRecord(_Record):
    """The images of the parity check."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)

    source: str
    count: int


class ParityComparisonRecord(_Record):
    """One comparison of the parity ladder."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)

    reference: str
    metrics: dict[str, JsonFloat]


class ParityRungRecord(_Record):
    """One rung of the parity ladder."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)

    artifact: str = ""
    comparisons: list[ParityComparisonRecord] = Field(default_factory=list)


class ParityRecord(_Record):
    """The summary of the parity report of the export.

    Only the fields that are read here are declared. `parity.schema.json` has all of them.
    """

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)

    schema_version: int = Field(3, alias="schema")  # reports had no number in summaries before 4
    passed: bool
    data: ParityImagesRecord | None = None
    rungs: list[ParityRungRecord] = Field(default_factory=list)

    def against_float(self, artifact: str) -> dict[str, float]:
        """Return the metrics of an artifact against float; empty if it was not compared.

        Before schema 4 of parity reports, `sqnr_db` counted biases as signal. Such a figure cannot
        be compared with today's and is left out.
        """
        for rung in self.rungs:
            for comparison in rung.comparisons:
                if rung.artifact == artifact and comparison.reference == "float":
                    old = {"sqnr_db"} if self.schema_version < _SQNR_OF_VARIATION else set()
                    return {k: v for k, v in comparison.metrics.items() if k not in old}
        return {}


class TrainingRecord(_Record):
    """How far the inputs of the BatchNorm layers were from their training statistics."""

    distance: NonNegativeFloat = Field(description="Mean over all BatchNorm layers.")
    first_layer: NonNegativeFloat
    last_layer: NonNegativeFloat
    images: PositiveInt = Field(description="Number of images that were run.")
    source: str = Field(description='Path of the images, or "embedded".')
    mismatch: bool = Field(description="True if the export was allowed with --allow-mismatch.")


class MarginRecord(_Record):
    """The layer whose results come nearest to half-way between two codes."""

    layer: str
    steps: NonNegativeFloat = Field(description="The distance, in steps of the output's scale.")


class ManifestDocument(_Record):
    """All that is needed to build an artifact again and to check what it is."""

    # Refuses unknown fields, also in `spec` and `recipe`: each of them would change the network.
    model_config = ConfigDict(
        extra="forbid",
        validate_by_name=True,
        title="mobiledeploy manifest",
    )

    schema_version: Literal[2] = Field(alias="schema")
    artifact: ArtifactRecord
    spec: _Spec = Field(description="The network, as `mobiledeploy.build` takes it.")
    code_from_manifest: str | None = Field(
        None,
        description="Path of the network's source file, relative to the manifest's folder."
        " Present if the network comes from a file.",
    )
    precision: Precision
    weights: WeightsRecord
    preprocessing: Preprocessing
    labels: tuple[str, ...] = Field(description="Class names; empty if unknown.")
    tool_versions: dict[str, str] = Field(description="Versions that shaped the artifact's bytes.")
    calibration: CalibrationRecord | None = Field(None, description="Present if int8.")
    recipe: QuantRecipe | None = Field(None, description="Present if int8.")
    encodings_sha256: str = Field(
        "", description="Digest of all encodings and quantized weights. Present if int8."
    )
    encodings: dict[str, EncodingRecord] = Field(
        default_factory=dict, description="Encoding of each activation. Present if int8."
    )
    margin: MarginRecord | None = Field(
        None, description="Absent in fp32 and in manifests of mobiledeploy 0.1."
    )
    training_match: TrainingRecord | None = Field(
        None, description="Absent if the network has random weights or there were too few images."
    )
    int8_coverage: CoverageRecord | None = None
    parity: ParityRecord | None = Field(None, description="Absent if parity was not checked.")

    @property
    def provenance(self) -> WeightsProvenance:
        """Return where the weights came from."""
        weights = self.weights
        return WeightsProvenance(
            source=weights.source,
            origin=weights.origin,
            sha256=weights.sha256,
            dialect=weights.dialect,
            notes=weights.notes,
        )

    @model_validator(mode="after")
    def _check_numbers(self) -> Self:
        """Raise ValueError unless sizes and divisors are above 0 and channels agree."""
        positive = {
            "spec.width": self.spec.width if isinstance(self.spec, ModelSpec) else 1,
            "spec.resolution": min(sides_of(self.spec.resolution)),
            "spec.in_channels": self.spec.in_channels,
            "preprocessing.crop_pct": self.preprocessing.crop_pct,
            **{f"preprocessing.std.{i}": std for i, std in enumerate(self.preprocessing.std)},
        }
        for name, value in positive.items():
            if value <= 0:
                raise ValueError(f"`{name}` is {value:g}, expected a number above 0")
        for name in ("mean", "std"):
            count, channels = len(getattr(self.preprocessing, name)), self.spec.in_channels
            if count != channels:
                raise ValueError(
                    f"`preprocessing.{name}` has {count} numbers, expected {channels}, one for"
                    " each channel"
                )
        if len(self.labels) not in (0, self.spec.num_classes):
            raise ValueError(
                f"`labels` has {len(self.labels)} names, expected {self.spec.num_classes} or none"
            )
        return self

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        """Raise ValueError unless format and precision agree with the other fields."""
        if not self.artifact.file.endswith(self.artifact.format.suffix):
            raise ValueError(
                f'`artifact.format` is "{self.artifact.format}", but the artifact is'
                f" {self.artifact.file}"
            )
        quantized = {
            name for name in ("recipe", "calibration") if getattr(self, name) is not None
        } | {name for name in ("encodings", "encodings_sha256") if name in self.model_fields_set}
        expected = {"recipe", "calibration", "encodings", "encodings_sha256"}
        if self.precision == "fp32" and quantized:
            raise ValueError(f'`precision` is "fp32", but `{min(quantized)}` is present')
        if self.precision == "int8" and quantized != expected:
            raise ValueError(f"`{min(expected - quantized)}` is missing")
        return self


def upgrade(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document of a manifest of any readable schema in the names of the current one.

    Schema 1 called the equalization of a recipe `factors`, with the values "given", "even" and
    "learned"; the oldest manifests have no such field and are "even". It called GPTQ "cancelling".
    """
    recipe = document.get("recipe")
    if document["schema"] != 1 or not isinstance(recipe, dict):
        return document | {"schema": SCHEMA}
    renamed = {"equalization": recipe.get("factors", "even")} | recipe
    renamed.pop("factors", None)
    for name in ("equalization", "rounding"):
        if isinstance(renamed.get(name), str):
            renamed[name] = _SCHEMA_1_VALUES.get(renamed[name], renamed[name])
    return document | {"schema": SCHEMA, "recipe": renamed}
