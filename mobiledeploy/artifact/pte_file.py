"""Check a `.pte` before the C++ runtime loads it.

ExecuTorch rejects most damaged files with an error code. But if its log quotes unprintable bytes of
the file, pybind11 cannot decode them and the process is aborted (``terminate called after throwing
... UnicodeDecodeError``). It quotes the file identifier of the program, that of each XNNPACK
network, and the names of constants that it cannot find. This module checks all three. It does not
find damage inside an XNNPACK graph whose structure is intact; only a checksum does.

Layout: ``executorch/schema/program.fbs``, ``executorch/schema/extended_header.h`` and
``executorch/backends/xnnpack/runtime/XNNHeader.h``.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flatbuffers.table import Table

from mobiledeploy.artifact.metadata import decode, metadata_errors_explained
from mobiledeploy.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

XNNPACK = "XnnpackBackend"
METHOD = "forward"
METADATA_METHOD = "mobiledeploy_metadata"
LABELS_METHOD = "mobiledeploy_labels"
_PROGRAM_IDENTIFIER = b"ET12"
_HEADER = struct.Struct("<4sIQQQ")
_HEADER_MAGIC = b"eh00"
_XNN_HEADER = struct.Struct("<4x4sHIIIQ")
_XNN_HEADER_MAGIC = b"XH00"
_XNN_IDENTIFIERS = (b"XN00", b"XN01")
_IN_SEGMENT = 1
_LABELS_LIMIT_BYTES = 16 << 20
_REMEDY = "Export the model again, or copy the file again."


@dataclass(frozen=True, slots=True)
class Delegate:
    """One network that a backend runs.

    Attributes:
        method: The method that calls it.
        backend: The backend's id, for example "XnnpackBackend".
        payload: The backend's data in the file.
    """

    method: str
    backend: str
    payload: memoryview


@dataclass(frozen=True, slots=True)
class PteContents:
    """The parts of a `.pte` that are read here.

    Attributes:
        data: The whole file; its root table is the Program of program.fbs.
        segments_at: Offset of the segments, which the offsets in the Program are relative to.
        delegates: The delegates of all methods, in order.
        named_data: Names of the constants that delegates share, in order.
    """

    data: memoryview
    segments_at: int
    delegates: tuple[Delegate, ...]
    named_data: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class XnnpackBlob:
    """The payload of an XNNPACK delegate.

    Attributes:
        graph: A flatbuffer, see executorch/backends/xnnpack/serialization/schema.fbs.
        constants: The constants that the graph refers to by offset.
        constant_names: The constants that the graph refers to by name, in the program's named data.
    """

    graph: memoryview
    constants: memoryview
    constant_names: tuple[str, ...]


def decode_description(
    path: Path, metadata: bytes, labels: bytes
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Decode the metadata and the labels that mobiledeploy's exporter writes; both may be empty.

    Args:
        path: The artifact, for error messages.
        metadata: The result of `METADATA_METHOD`: a JSON document.
        labels: The result of `LABELS_METHOD`: class names, one per line, compressed with zlib.

    Raises:
        ArtifactError: they are damaged.
    """
    with metadata_errors_explained(path):
        names = _decompress(labels).decode().splitlines() if labels else []
        return decode(metadata or b"{}"), tuple(names)


def _decompress(data: bytes) -> bytes:
    """Decompress with a limit: a damaged or hostile stream may expand a thousandfold.

    Raises:
        ValueError: The content is larger.
        zlib.error: The data are damaged.
    """
    stream = zlib.decompressobj()
    content = stream.decompress(data, _LABELS_LIMIT_BYTES)
    if stream.unconsumed_tail:
        raise ValueError(f"its labels have more than {_LABELS_LIMIT_BYTES} bytes")
    if not stream.eof:
        raise ValueError("its labels are cut off")
    return content


def check_pte(path: Path) -> None:
    """Raise unless `path` is a complete `.pte` whose delegates have the expected identifiers.

    Raises:
        ArtifactError: the file cannot be read, is empty or truncated, or is not a `.pte`.
    """
    contents = read_pte(path)
    for delegate in contents.delegates:
        if delegate.backend == XNNPACK:
            blob = split_xnnpack_payload(path, delegate.payload)
            missing = set(blob.constant_names).difference(contents.named_data)
            if missing:
                raise ArtifactError(
                    f"{path}: its XNNPACK network refers to constants that the program "
                    f"does not have: {sorted(missing)}.",
                    remedy=_REMEDY,
                )


def read_pte(path: Path) -> PteContents:
    """Read the delegates and the named data of a `.pte`.

    Raises:
        ArtifactError: the file cannot be read, is empty or truncated, or is not a `.pte`.
    """
    data = _read(path)
    if data[4:8] != _PROGRAM_IDENTIFIER:
        raise ArtifactError(
            f"{path} is not an ExecuTorch program: bytes 4 to 8 are {bytes(data[4:8])!r}, "
            f"expected {_PROGRAM_IDENTIFIER!r}.",
            remedy=_REMEDY,
        )
    segments_at = _segments_at(path, data)
    with structure_errors_explained(path):
        program = _root(data)
        return PteContents(
            data,
            segments_at,
            tuple(_delegates(program, segments_at)),
            tuple(_string(named, 0) for named in _tables(program, 7)),
        )


def _segments_at(path: Path, data: memoryview) -> int:
    """Return the offset of the segments; 0 for a program without segments and extended header.

    Raises:
        ArtifactError: the file is shorter than its header claims.
    """
    if len(data) < 8 + _HEADER.size:
        raise _truncated(path, 8 + _HEADER.size, len(data))
    magic, _, program_size, segments_at, segments_size = _HEADER.unpack_from(data, 8)
    if magic != _HEADER_MAGIC:
        return 0
    expected = max(program_size, segments_at + segments_size)
    if len(data) < expected:
        raise _truncated(path, expected, len(data))
    return int(segments_at)


def split_xnnpack_payload(path: Path, payload: memoryview) -> XnnpackBlob:
    """Split the payload of an XNNPACK delegate into graph and constants.

    Raises:
        ArtifactError: its header, its identifier or its length is wrong.
    """
    if len(payload) < _XNN_HEADER.size:
        raise _truncated(path, _XNN_HEADER.size, len(payload))
    magic, _, graph_at, graph_size, constants_at, constants_size = _XNN_HEADER.unpack_from(payload)
    graph = payload[graph_at : graph_at + graph_size]
    if magic != _XNN_HEADER_MAGIC or bytes(graph[4:8]) not in _XNN_IDENTIFIERS:
        raise ArtifactError(
            f"{path}: its XNNPACK network has the identifiers {magic!r} and "
            f"{bytes(graph[4:8])!r}, expected {_XNN_HEADER_MAGIC!r} and one of {_XNN_IDENTIFIERS}.",
            remedy=_REMEDY,
        )
    constants = payload[constants_at : constants_at + constants_size]
    if len(graph) != graph_size or len(constants) != constants_size:
        raise _truncated(path, constants_at + constants_size, len(payload))
    with structure_errors_explained(path):
        names = tuple(_string(constant, 2) for constant in _tables(_root(graph), 8))
    return XnnpackBlob(graph, constants, tuple(name for name in names if name))


@contextmanager
def structure_errors_explained(path: Path) -> Iterator[None]:
    """Translate the errors of reading a damaged flatbuffer, whose offsets may point anywhere.

    Raises:
        ArtifactError: a read failed.
    """
    try:
        yield
    except (struct.error, IndexError, ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{path}: the structure of the program is damaged ({error}).", remedy=_REMEDY
        ) from error


def _read(path: Path) -> memoryview:
    """Map the file into memory, so that its weights are not read."""
    try:
        with path.open("rb") as handle:
            if path.stat().st_size == 0:
                return memoryview(b"")
            return memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ArtifactError(f"Could not read {path}: {error.strerror}.") from error


def _truncated(path: Path, expected: int, found: int) -> ArtifactError:
    return ArtifactError(
        f"{path} is truncated: {found} bytes, expected at least {expected}.",
        remedy=_REMEDY,
    )


def _delegates(program: Table, segments_at: int) -> Iterator[Delegate]:
    """Walk program.fbs: Program -> execution_plan[] -> delegates[] -> processed data."""
    data = memoryview(program.Bytes)
    segments = list(_tables(program, 4))
    inline = list(_tables(program, 3))
    for plan in _tables(program, 1):
        for delegate in _tables(plan, 7):
            processed = _table(delegate, 1)
            index = _number(processed, 1, "<I")
            if _number(processed, 0, "<b") == _IN_SEGMENT:
                offset = segments_at + _number(segments[index], 0, "<Q")
                payload = data[offset : offset + _number(segments[index], 1, "<Q")]
            else:
                payload = _bytes(inline[index], 0)
            yield Delegate(_string(plan, 0), _string(delegate, 0), payload)


def _root(data: memoryview) -> Table:
    """Return the root table of a flatbuffer."""
    return Table(data, struct.unpack_from("<I", data)[0])


def _field(table: Table, number: int) -> int:
    """Return the position of field `number` of a flatbuffer table, or 0 if it is absent."""
    offset = table.Offset(4 + 2 * number)
    return table.Pos + offset if offset else 0


def _number(table: Table, field: int, format_: str) -> int:
    """Return an integer field in the notation of `struct`; the default of all fields here is 0."""
    at = _field(table, field)
    return int(struct.unpack_from(format_, table.Bytes, at)[0]) if at else 0


def _table(table: Table, field: int) -> Table:
    at = _field(table, field)
    if not at:
        raise ValueError(f"field {field} is missing")
    return Table(table.Bytes, table.Indirect(at))


def _string(table: Table, field: int) -> str:
    at = _field(table, field)
    return bytes(table.String(at)).decode() if at else ""


def _vector(table: Table, field: int, item_bytes: int) -> tuple[int, int]:
    """Return the position of the first item of a vector and the number of items."""
    at = _field(table, field)
    if not at:
        return 0, 0
    count = table.VectorLen(at - table.Pos)
    start = table.Vector(at - table.Pos)
    if start + count * item_bytes > len(table.Bytes):
        raise ValueError(f"a vector of {count} items exceeds the file")
    return start, count


def _tables(table: Table, field: int) -> Iterator[Table]:
    start, count = _vector(table, field, item_bytes=4)
    for index in range(count):
        yield Table(table.Bytes, table.Indirect(start + 4 * index))


def _bytes(table: Table, field: int) -> memoryview:
    start, count = _vector(table, field, item_bytes=1)
    return memoryview(table.Bytes)[start : start + count]
