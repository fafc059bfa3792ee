"""Results of `diff` and `reproduce`: two artifacts, A the reference and B the candidate."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, computed_field

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.parity.types import Metrics
from mobiledeploy.stages import Encoding
from mobiledeploy.utils.json_model import JsonFloat, JsonModel

InputName = Literal[
    "network", "weights", "preprocessing", "labels", "calibration", "recipe", "tools"
]


class Change(JsonModel):
    """A field that differs.

    Attributes:
        field: Name of the field.
        a: Its value in A; empty if A does not have it.
        b: Its value in B; empty if B does not have it.
    """

    field: str
    a: str
    b: str


class InputComparison(JsonModel):
    """One of the inputs that an artifact is made from.

    Attributes:
        name: Which input.
        a: Short description of A's.
        b: Short description of B's.
        changes: The fields that differ. If it is empty the inputs are the same, although the
            descriptions may differ (in a path).
    """

    name: InputName
    a: str
    b: str
    changes: tuple[Change, ...]


class MovedEncoding(JsonModel):
    """An activation that has different encodings in A and B.

    Attributes:
        name: Name of the operator that computes it.
        layer: The module that the operator belongs to; empty if unknown.
        a: Encoding in A.
        b: Encoding in B.
    """

    name: str
    layer: str
    a: Encoding
    b: Encoding

    @computed_field  # type: ignore[prop-decorator]  # mypy has no decorated properties
    @property
    def scale_ratio(self) -> float:
        """Return B's scale over A's: above 1, B rounds more coarsely and clips less."""
        return self.b.scale / self.a.scale

    @computed_field  # type: ignore[prop-decorator]
    @property
    def distance(self) -> float:
        """Return how far the farther end of the range moved, as a share of A's range."""
        width = self.a.high - self.a.low
        return max(abs(self.b.low - self.a.low), abs(self.b.high - self.a.high)) / width


class EncodingsDiff(JsonModel):
    """How the encodings of activations differ.

    Attributes:
        common: Number of activations that both networks quantize.
        moved: Those with different encodings, the farthest first.
        only_a: Names of activations that only A quantizes.
        only_b: Names of activations that only B quantizes.
        same_network: Whether the int8 networks are identical, weights included.
    """

    common: int
    moved: tuple[MovedEncoding, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    same_network: bool


class OperatorChange(JsonModel):
    """An operator whose number differs.

    Attributes:
        where: The graph or the delegate.
        name: The format's name of the operator.
        datatype: Datatype of its output; empty if unknown.
        a: Number in A.
        b: Number in B.
    """

    where: str
    name: str
    datatype: str
    a: int
    b: int


class FilesDiff(JsonModel):
    """How the files differ.

    Attributes:
        same_bytes: Whether the sha256 is the same.
        formats: Formats of A and B.
        a_bytes: Size of A.
        b_bytes: Size of B.
        operators: Operators whose number differs; None if the formats differ or a file is missing.
        constants: Bytes of constants in A and B by datatype; None if a file is missing.
        int8_macs_shares: Share of the multiply-accumulates in int8, in A and B; None if unknown.
    """

    same_bytes: bool
    formats: tuple[Format, Format]
    a_bytes: int
    b_bytes: int
    operators: tuple[OperatorChange, ...] | None
    constants: dict[str, tuple[int, int]] | None
    int8_macs_shares: tuple[float | None, float | None] = (None, None)


class FloatComparison(JsonModel):
    """An artifact against its float network.

    Attributes:
        sqnr_db: SQNR of the logits in dB; infinite if they are equal, NaN if it is undefined.
        top1_agreement: Share of images with float's top class; None if the outputs are no classes.
        images: Number of images.
        source: Where the images came from.
    """

    sqnr_db: JsonFloat
    top1_agreement: float | None
    images: int
    source: str


class Flip(JsonModel):
    """An image whose top class differs.

    Attributes:
        image: Name of the image.
        a: Top class of A.
        b: Top class of B.
        margin: A's logit of its top class minus A's logit of B's top class.
        label: The correct class; empty if unknown.
    """

    image: str
    a: str
    b: str
    margin: float
    label: str


class PairedComparison(JsonModel):
    """Which artifact does better, image by image.

    Attributes:
        a: Number of images on which A does better.
        b: Number of images on which B does better.
        p_value: Two-sided sign test: probability of a split at least this uneven if both are
            equally good.
    """

    a: int
    b: int
    p_value: float


class OutputsDiff(JsonModel):
    """How the outputs on the same images differ.

    Attributes:
        count: Number of images.
        source: Where the images came from.
        metrics: Metrics of B's logits against A's (see `parity.compare`); empty if the numbers of
            classes differ.
        flips: Images whose top class differs, the largest margin first.
        a_against_float: A against its float network; None if that could not be built.
        b_against_float: B against its float network; None if that could not be built.
        closer_to_float: Which is closer to its float network; None if one could not be built.
        correct: Which predicts the label; None without labels.
        both_correct: Number of images on which both predict the label; None without labels.
    """

    # pydantic's setting would require all keys of `Metrics` in the JSON schema as well
    model_config = ConfigDict(json_schema_serialization_defaults_required=False)

    count: int
    source: str
    metrics: Metrics
    flips: tuple[Flip, ...]
    a_against_float: FloatComparison | None
    b_against_float: FloatComparison | None
    closer_to_float: PairedComparison | None = None
    correct: PairedComparison | None = None
    both_correct: int | None = None


class Difference(JsonModel):
    """All differences between a reference A and a candidate B.

    Attributes:
        a: The path of A as given.
        b: The path of B as given.
        inputs: What the artifacts were made from, in the order of the pipeline.
        encodings: Encodings of activations; None if both networks are float.
        files: The files themselves.
        a_at_export: A against float as its export measured it; None if it did not.
        b_at_export: B against float as its export measured it; None if it did not.
        outputs: Outputs on images; None if no images were given.
        notes: What could not be compared and why, one sentence each.
    """

    a: str
    b: str
    inputs: tuple[InputComparison, ...]
    encodings: EncodingsDiff | None
    files: FilesDiff
    a_at_export: FloatComparison | None
    b_at_export: FloatComparison | None
    outputs: OutputsDiff | None = None
    notes: tuple[str, ...] = ()

    @property
    def changed_inputs(self) -> tuple[InputComparison, ...]:
        """Return the inputs that differ."""
        return tuple(entry for entry in self.inputs if entry.changes)

    @property
    def formats_differ(self) -> bool:
        """Return whether A and B have different formats."""
        return self.files.formats[0] != self.files.formats[1]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def same(self) -> bool:
        """Return whether bytes, inputs and int8 networks are all the same."""
        same_network = self.encodings is None or self.encodings.same_network
        return self.files.same_bytes and same_network and not self.changed_inputs


class Reproduction(JsonModel):
    """An artifact and the one that its manifest gives today.

    Attributes:
        manifest: Path of the manifest.
        expected_sha256: sha256 of the artifact in the manifest.
        found_sha256: sha256 of the rebuilt artifact; None if nothing was built because the inputs
            are not those of the manifest.
        reasons: Why the bytes differ, one sentence each.
        difference: The artifact (A) and the rebuilt one (B); None if nothing was built or nothing
            differs.
    """

    manifest: str
    expected_sha256: str
    found_sha256: str | None
    reasons: tuple[str, ...] = ()
    difference: Difference | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def same(self) -> bool:
        """Return whether the rebuilt artifact has the bytes of the manifest."""
        return self.found_sha256 == self.expected_sha256
