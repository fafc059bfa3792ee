"""Read a `.pte`: its delegates, the kernels outside them, and its constants.

See executorch/schema/program.fbs.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.artifact.flatbuffer import Generated, bindings
from mobiledeploy.artifact.pte_file import (
    LABELS_METHOD,
    METADATA_METHOD,
    METHOD,
    XNNPACK,
    PteContents,
    check_pte,
    decode_description,
    read_pte,
    split_xnnpack_payload,
    structure_errors_explained,
)
from mobiledeploy.errors import ArtifactError
from mobiledeploy.inspect.coverage import coverage_of
from mobiledeploy.inspect.kernels import instructions, kernel_work, kernels
from mobiledeploy.inspect.summary import (
    ArtifactSummary,
    ConstantMethod,
    OperatorGroup,
    TensorEncoding,
    TensorSummary,
    count_operators,
)
from mobiledeploy.inspect.tensors import SCALAR_TYPES, datatype_of, shape_of
from mobiledeploy.inspect.xnnpack import XnnpackGraph, read_xnnpack
from mobiledeploy.utils.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mobiledeploy.artifact.coverage import Coverage

_SCHEMA = "schema/program.fbs"
_OUTSIDE = "outside the delegates, in ExecuTorch's own kernels"


def inspect_pte(path: Path) -> ArtifactSummary:
    """Return what an ExecuTorch program contains.

    Raises:
        ArtifactError: the file is damaged, or has no method "forward".
        RuntimeFailedError: the installed executorch cannot read it.
    """
    check_pte(path)
    contents = read_pte(path)
    schema = bindings(_SCHEMA)
    with structure_errors_explained(path):
        program = schema.ProgramT.InitFromPackedBuf(contents.data, 0)
        methods = {plan.name.decode(): plan for plan in program.executionPlan}
        if METHOD not in methods:
            raise ArtifactError(
                f"{path} has methods {sorted(methods)}; expected {METHOD!r}.",
                remedy="Export the model with `mobiledeploy export`.",
            )
        return _summary(path, contents, program, methods)


def _summary(
    path: Path, contents: PteContents, program: Generated, methods: dict[str, Generated]
) -> ArtifactSummary:
    forward = methods[METHOD]
    delegates = [delegate for delegate in contents.delegates if delegate.method == METHOD]
    graphs = [
        read_xnnpack(bytes(split_xnnpack_payload(path, delegate.payload).graph))
        if delegate.backend == XNNPACK
        else None
        for delegate in delegates
    ]
    encodings = _boundary_encodings(forward, graphs)
    groups = [
        OperatorGroup(
            where=f"delegate {index}: {delegate.backend}",
            operators=graph.operators if graph else (),
        )
        for index, (delegate, graph) in enumerate(zip(delegates, graphs, strict=True))
    ]
    outside = count_operators(kernels(forward))
    if outside:
        groups.append(OperatorGroup(where=_OUTSIDE, operators=outside))
    metadata, labels = decode_description(
        path,
        _constant(contents, program, methods.get(METADATA_METHOD)),
        _constant(contents, program, methods.get(LABELS_METHOD)),
    )
    weights = _constant_tensors_bytes(forward)
    for graph in graphs:
        weights.update(graph.constants_bytes if graph else {})
    return ArtifactSummary(
        path=path,
        format=Format.PTE,
        sha256=sha256_of(path),
        size_bytes=path.stat().st_size,
        inputs=tuple(_tensor(forward, index, encodings) for index in forward.inputs),
        outputs=tuple(_tensor(forward, index, encodings) for index in forward.outputs),
        groups=tuple(groups),
        weights_bytes=dict(weights),
        metadata=metadata,
        labels=labels,
        coverage=_coverage(forward, graphs),
        backends=tuple(delegate.backend for delegate in delegates),
        constant_methods=tuple(
            _constant_method(name, plan)
            for name, plan in methods.items()
            if name not in (METHOD, METADATA_METHOD, LABELS_METHOD)
        ),
        planned_memory_bytes=int(sum(forward.nonConstBufferSizes)),
    )


def _coverage(forward: Generated, graphs: Sequence[XnnpackGraph | None]) -> Coverage | None:
    """Return the coverage of delegates and kernels; None if a delegate cannot be read."""
    if any(graph is None for graph in graphs):
        return None
    inside = [work for graph in graphs if graph is not None for work in graph.work]
    return coverage_of([*inside, *kernel_work(forward)], "XNNPACK's graph as serialized")


def _boundary_encodings(
    plan: Generated, graphs: Sequence[XnnpackGraph | None]
) -> dict[int, TensorEncoding]:
    """Return how delegates quantize and dequantize, by the index of the tensor outside."""
    encodings: dict[int, TensorEncoding] = {}
    for call in instructions(plan):
        graph = graphs[call.delegateIndex] if hasattr(call, "delegateIndex") else None
        if graph:
            given = (*graph.input_encodings, *graph.output_encodings)
            pairs = zip(call.args, given, strict=True)
            encodings |= {int(index): encoding for index, encoding in pairs if encoding}
    return encodings


def _tensor(plan: Generated, index: int, encodings: dict[int, TensorEncoding]) -> TensorSummary:
    value = plan.values[index].val
    return TensorSummary(
        name="",
        datatype=datatype_of(value),
        shape=shape_of(value),
        encoding=encodings.get(int(index)),
    )


def _constant_method(name: str, plan: Generated) -> ConstantMethod:
    value = plan.values[plan.outputs[0]].val
    return ConstantMethod(name=name, datatype=datatype_of(value), shape=shape_of(value))


def _constant(contents: PteContents, program: Generated, plan: Generated | None) -> bytes:
    """Return the bytes that a constant method returns; b"" if there is no such method."""
    if plan is None:
        return b""
    tensor = plan.values[plan.outputs[0]].val
    table = program.constantSegment
    segment = program.segments[table.segmentIndex]
    start = contents.segments_at + segment.offset + int(table.offsets[tensor.dataBufferIdx])
    return bytes(contents.data[start : start + math.prod(shape_of(tensor))])


def _constant_tensors_bytes(plan: Generated) -> Counter[str]:
    """Return the bytes of the constants that kernels outside delegates read, by datatype."""
    sizes: Counter[str] = Counter()
    for value in (entry.val for entry in plan.values):
        if getattr(value, "dataBufferIdx", 0):
            datatype, item_bytes = SCALAR_TYPES[value.scalarType]
            sizes[datatype] += math.prod(shape_of(value)) * item_bytes
    return sizes
