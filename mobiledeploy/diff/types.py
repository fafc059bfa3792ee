"""What `diff` and `reproduce` found: two artifacts side by side, A the reference, B the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mobiledeploy.network import Encoding

InputName = Literal[
    "network", "weights", "preprocessing", "labels", "calibration", "recipe", "tools"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field that differs; a value is "" on the side that does not have it."""

    field: str
    a: str
    b: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputComparison:
    """One of the things that an artifact is made from.

    Attributes:
        a: What it is in A, in a few words.
        b: Likewise.
        changes: What differs; empty where nothing does, though the words (a path) may.
    """

    name: InputName
    a: str
    b: str
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedEncoding:
    """An activation that both quantize, each in its own way.

    Attributes:
        name: Of the operator that produces it.
        layer: The module that this belongs to; empty where the manifest does not tell.
    """

    name: str
    layer: str
    a: Encoding
    b: Encoding

    @property
    def scale_ratio(self) -> float:
        """Return B's scale over A's: above 1, B rounds more coarsely and clips less."""
        return self.b.scale / self.a.scale

    @property
    def distance(self) -> float:
        """Return how far it moved: bounds by which a range grew or shrank, in ranges of A's."""
        width = self.a.high - self.a.low
        return max(abs(self.b.low - self.a.low), abs(self.b.high - self.a.high)) / width


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodingsDiff:
    """How activations are quantized.

    Attributes:
        common: How many activations both have.
        moved: Of these, the farthest first.
        only_a: Names of activations that B does not have.
        only_b: And the other way round.
        same_network: Whether the int8 networks are the same to the last weight.
    """

    common: int
    moved: tuple[MovedEncoding, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    same_network: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorChange:
    """How often an operator occurs in the files.

    Attributes:
        where: The graph, or the delegate.
        datatype: That it writes; empty where the file does not tell.
    """

    where: str
    name: str
    datatype: str
    a: int
    b: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesDiff:
    """The files themselves.

    Attributes:
        same_bytes: By their sha256.
        a_bytes: Size of A.
        b_bytes: Size of B.
        formats: Of A and B.
        operators: Whose number differs; None where the formats differ, or a file is not there.
        constants: Of every datatype, the bytes of constants in A and B; None likewise.
        int8_macs_shares: Of the multiply-accumulates, in A and B; None where a manifest does not
            tell.
    """

    same_bytes: bool
    formats: tuple[str, str]
    a_bytes: int
    b_bytes: int
    operators: tuple[OperatorChange, ...] | None
    constants: Mapping[str, tuple[int, int]] | None
    int8_macs_shares: tuple[float | None, float | None] = (None, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class FloatComparison:
    """What an artifact has lost against its float network.

    Attributes:
        sqnr_db: Infinite where nothing differs.
        agreement: Share of images with float's top class.
        images: How many.
        source: Of the images.
    """

    sqnr_db: float
    agreement: float
    images: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """An image on which the top classes differ.

    Attributes:
        a: A's class.
        b: B's class.
        margin: By how much A's logit of its class is above that of B's.
        truth: The label, where it is known.
    """

    image: str
    a: str
    b: str
    margin: float
    truth: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedComparison:
    """Which of two does better, image by image.

    Attributes:
        a: Images on which A does better.
        b: And B.
        chance: How likely so uneven a division is where the two are equally good, 0 to 1.
    """

    a: int
    b: int
    chance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputsDiff:
    """Both artifacts on the same images.

    Attributes:
        count: How many images.
        source: Where they came from.
        figures: Of B against A (see `verify.figures`); empty where they cannot be compared.
        flips: The largest margin first.
        a_loss: Of A against its float network; None where that could not be built.
        b_loss: Of B, likewise.
        nearer: To its float network; None where that could not be built.
        right: In the class of the label; None without labels.
        both_right: Images that both classify as labelled; None without labels.
    """

    count: int
    source: str
    figures: Mapping[str, float]
    flips: tuple[Flip, ...]
    a_loss: FloatComparison | None
    b_loss: FloatComparison | None
    nearer: PairedComparison | None = None
    right: PairedComparison | None = None
    both_right: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """All that can be told of two artifacts, reference A and candidate B.

    Attributes:
        a: What was given, for people.
        b: Likewise.
        parts: What they were made from, in the order of the pipeline.
        encodings: None where neither is int8.
        a_recorded: What A's export measured; None where it did not.
        b_recorded: Likewise.
        outputs: None where no images were given.
        notes: What could not be compared, and why, one sentence each.
    """

    a: str
    b: str
    parts: tuple[InputComparison, ...]
    encodings: EncodingsDiff | None
    files: FilesDiff
    a_recorded: FloatComparison | None
    b_recorded: FloatComparison | None
    outputs: OutputsDiff | None = None
    notes: tuple[str, ...] = ()

    @property
    def changed_parts(self) -> tuple[InputComparison, ...]:
        """Return what they were made from that differs."""
        return tuple(part for part in self.parts if part.changes)

    @property
    def other_format(self) -> bool:
        """Return whether one is ONNX and the other ExecuTorch's."""
        return self.files.formats[0] != self.files.formats[1]

    @property
    def same(self) -> bool:
        """Return whether nothing at all differs."""
        same_network = self.encodings is None or self.encodings.same_network
        return self.files.same_bytes and same_network and not self.changed_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """An artifact, and what its manifest gives today.

    Attributes:
        manifest: Its path.
        expected_sha256: Of the artifact, as the manifest says.
        found_sha256: Of the one that was built; empty where the inputs alone forbade it.
        reasons: Why the bytes are not the same, one sentence each.
        difference: The artifact (A) and the rebuilt one (B); None where nothing was built.
    """

    manifest: str
    expected_sha256: str
    found_sha256: str
    reasons: tuple[str, ...] = ()
    difference: Difference | None = None

    @property
    def same(self) -> bool:
        """Return whether the bytes are those of the manifest."""
        return self.found_sha256 == self.expected_sha256
