"""What an artifact holds, in terms that both formats share."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mobiledeploy.artifact.artifact import Format
    from mobiledeploy.artifact.coverage import Coverage

INT8 = frozenset({"int8", "uint8"})


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEncoding:
    """How the network represents a tensor within: real = (q - zero_point) * scale.

    Attributes:
        datatype: Of q: "int8" or "uint8".
        scale: As stored, in float32.
        zero_point: As stored.
    """

    datatype: str
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSummary:
    """An input or an output.

    Attributes:
        name: Empty in `.pte`, where inputs and outputs are numbered.
        datatype: At the boundary, for example "float32".
        shape: An entry is a name where the size is free.
        encoding: Where the network quantizes its input or dequantizes its output; else None.
    """

    name: str
    datatype: str
    shape: tuple[int | str, ...]
    encoding: TensorEncoding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCount:
    """How often one operator occurs with one datatype.

    Attributes:
        name: As the format calls it.
        datatype: Of its first output; "" where the file does not tell.
        count: At least 1.
    """

    name: str
    datatype: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorGroup:
    """Operators that are run in one place.

    Attributes:
        where: The graph, the delegate, or what is outside of delegates.
        operators: The most frequent first.
    """

    where: str
    operators: tuple[OperatorCount, ...]

    @property
    def total(self) -> int:
        """Return the number of operators."""
        return sum(operator.count for operator in self.operators)

    @property
    def int8(self) -> int:
        """Return how many operators write 8-bit integers."""
        return sum(o.count for o in self.operators if o.datatype in INT8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantMethod:
    """A method of a `.pte` that only returns data.

    Attributes:
        name: Of the method.
        datatype: Of what it returns.
        shape: Of what it returns; empty for a number or a string.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSummary:
    """What an artifact holds.

    Attributes:
        inputs: In order.
        outputs: In order.
        groups: ONNX: the graph as stored, and as ONNX Runtime rewrites it for this machine. `.pte`:
            each delegate, and what is outside of delegates.
        weights_bytes: Size of the constants by datatype.
        metadata: What our exporters say about the artifact; empty for one of other makers.
        labels: Names of the classes, if the artifact carries them.
        coverage: What is computed in int8; None where it cannot be counted: another backend's
            delegate, or an image of no fixed size.
        opsets: ONNX: domain ("" is ONNX's own) to version.
        other_metadata: ONNX: `metadata_props` of other makers.
        backends: `.pte`: the backend of each delegate.
        constant_methods: `.pte`: those beside the ones that hold metadata and labels.
        planned_memory_bytes: `.pte`: what the runtime allocates for tensors between delegates.
    """

    path: Path
    format: Format
    sha256: str
    size_bytes: int
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    groups: tuple[OperatorGroup, ...]
    weights_bytes: Mapping[str, int]
    metadata: Mapping[str, object]
    labels: tuple[str, ...]
    coverage: Coverage | None = None
    opsets: Mapping[str, int] = field(default_factory=dict)
    other_metadata: Mapping[str, str] = field(default_factory=dict)
    backends: tuple[str, ...] = ()
    constant_methods: tuple[ConstantMethod, ...] = ()
    planned_memory_bytes: int | None = None


def count_operators(operators: Iterable[tuple[str, str]]) -> tuple[OperatorCount, ...]:
    """Count (name, datatype) pairs; the most frequent come first."""
    counts = sorted(Counter(operators).items(), key=lambda item: (-item[1], item[0]))
    return tuple(
        OperatorCount(name=name, datatype=datatype, count=count)
        for (name, datatype), count in counts
    )
