"""What an artifact contains, in terms that all formats share."""

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
    """The encoding of a tensor inside the network: real = (q - zero_point) * scale.

    Attributes:
        datatype: Datatype of q: "int8" or "uint8".
        scale: The stored float32 scale.
        zero_point: The stored zero-point.
    """

    datatype: str
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSummary:
    """An input or an output of the network.

    Attributes:
        name: Its name; empty in `.pte`, where inputs and outputs are numbered.
        datatype: The datatype that the app passes or receives, for example "float32".
        shape: The shape; a symbolic size is a name.
        encoding: How the network quantizes the input or dequantizes the output; None if it does
            not.
    """

    name: str
    datatype: str
    shape: tuple[int | str, ...]
    encoding: TensorEncoding | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorCount:
    """The number of operators of one kind and datatype.

    Attributes:
        name: The format's name of the operator.
        datatype: Datatype of its first output; empty if unknown.
        count: How many there are, at least 1.
    """

    name: str
    datatype: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorGroup:
    """The operators of one graph or delegate.

    Attributes:
        where: Which graph or delegate, or outside the delegates.
        operators: The operators, the most frequent first.
    """

    where: str
    operators: tuple[OperatorCount, ...]

    @property
    def total(self) -> int:
        """Return the number of operators."""
        return sum(operator.count for operator in self.operators)

    @property
    def int8(self) -> int:
        """Return the number of operators that write 8-bit integers."""
        return sum(o.count for o in self.operators if o.datatype in INT8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConstantMethod:
    """A method of a `.pte` that returns constant data.

    Attributes:
        name: Name of the method.
        datatype: Datatype of the result.
        shape: Shape of the result; empty for a number or a string.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactSummary:
    """What an artifact contains.

    Attributes:
        path: The artifact.
        format: Its file format.
        sha256: sha256 of the file, in hex.
        size_bytes: Size of the file.
        inputs: The inputs, in order.
        outputs: The outputs, in order.
        groups: ONNX: the graph as stored, and as ONNX Runtime optimizes it on this machine. `.pte`:
            each delegate, and the kernels outside the delegates.
        weights_bytes: Size of the constants by datatype.
        metadata: The metadata that mobiledeploy wrote; empty for artifacts of other tools.
        labels: Class names; empty if the artifact has none.
        coverage: How much computes in int8; None if it cannot be counted, because a delegate is not
            XNNPACK's or the image size is not fixed.
        opsets: ONNX: domain ("" is ONNX's own) to version.
        ir_version: ONNX: version of the file's structure.
        oldest_onnxruntime: ONNX: the oldest release of ONNX Runtime known to load these versions;
            None if none was tried.
        other_metadata: ONNX: `metadata_props` of other tools.
        backends: `.pte`: the backend of each delegate.
        constant_methods: `.pte`: the constant methods except for metadata and labels.
        planned_memory_bytes: `.pte`: memory that the runtime allocates for tensors outside the
            delegates.
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
    ir_version: int | None = None
    oldest_onnxruntime: str | None = None
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
