"""Reading the layout of a `.pte`, and refusing damaged files without loading the runtime."""

import struct
import warnings

import pytest

from mobiledeploy.artifact.pte_file import (
    XNNPACK,
    check_pte,
    decode_description,
    read_pte,
    split_xnnpack_payload,
)
from mobiledeploy.errors import ArtifactError

XNN_HEADER = struct.Struct("<4x4sHIIIQ")


@pytest.fixture
def payload(float_pte):
    """A copy of the first delegate's payload."""
    return bytearray(read_pte(float_pte).delegates[0].payload)


def refusal(payload, path):
    with pytest.raises(ArtifactError) as caught:
        split_xnnpack_payload(path, memoryview(payload))
    assert str(path) in caught.value.message
    return caught.value.message


def test_delegates_are_read_in_order(float_pte):
    delegates = read_pte(float_pte).delegates
    assert [(d.method, d.backend) for d in delegates] == [("forward", XNNPACK)] * 2


def test_the_header_locates_graph_and_constants(float_pte, payload):
    _, _, graph_at, graph_size, constants_at, constants_size = XNN_HEADER.unpack_from(payload)
    payload += b"constants"
    XNN_HEADER.pack_into(payload, 0, b"XH00", 30, graph_at, graph_size, len(payload) - 9, 9)
    blob = split_xnnpack_payload(float_pte, memoryview(payload))
    assert bytes(blob.graph) == payload[graph_at : graph_at + graph_size]
    assert bytes(blob.constants) == b"constants"
    assert (constants_at, constants_size) != (len(payload) - 9, 9)


def test_constant_names_are_those_of_the_program(float_pte):
    contents = read_pte(float_pte)
    names = [
        name
        for delegate in contents.delegates
        for name in split_xnnpack_payload(float_pte, delegate.payload).constant_names
    ]
    assert sorted(names) == sorted(contents.named_data)
    assert len(names) == 8  # four layers with weights and biases


@pytest.mark.parametrize("kept", [0, 29])
def test_a_payload_shorter_than_its_header_is_refused(float_pte, payload, kept):
    assert f"{kept} bytes, expected at least 30" in refusal(payload[:kept], float_pte)


def test_a_payload_shorter_than_its_constants_is_refused(float_pte, payload):
    fields = list(XNN_HEADER.unpack_from(payload))
    fields[4], fields[5] = len(payload) - 10, 11
    XNN_HEADER.pack_into(payload, 0, *fields)
    message = refusal(payload, float_pte)
    assert f"{len(payload)} bytes, expected at least {len(payload) + 1}" in message


def test_a_payload_shorter_than_its_graph_is_refused(float_pte, payload):
    fields = list(XNN_HEADER.unpack_from(payload))
    fields[3] = len(payload)
    XNN_HEADER.pack_into(payload, 0, *fields)
    assert "truncated" in refusal(payload, float_pte)


def test_a_payload_with_a_wrong_identifier_is_refused(float_pte, payload):
    (graph_at,) = struct.unpack_from("<I", payload, 10)
    wrong = bytearray(payload)
    wrong[4:8] = b"XH99"
    assert "identifiers b'XH99' and b'XN01'" in refusal(wrong, float_pte)
    payload[graph_at + 4 : graph_at + 8] = b"XN99"
    assert "identifiers b'XH00' and b'XN99'" in refusal(payload, float_pte)


@pytest.mark.parametrize("missing", [1, 5])
def test_a_truncated_file_is_refused_with_both_sizes(float_pte, tmp_path, missing):
    content = float_pte.read_bytes()
    path = tmp_path / "short.pte"
    path.write_bytes(content[:-missing])
    expected = f"{len(content) - missing} bytes, expected at least {len(content)}"
    with pytest.raises(ArtifactError, match=expected):
        read_pte(path)


def test_a_file_that_ends_inside_its_header_is_refused(float_pte, tmp_path):
    path = tmp_path / "short.pte"
    path.write_bytes(float_pte.read_bytes()[:39])
    with pytest.raises(ArtifactError, match="39 bytes, expected at least 40"):
        read_pte(path)


def test_a_program_without_segments_has_no_extended_header(tmp_path):
    """It is a complete program."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.exir import to_edge

        edge = to_edge(torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 3, 4, 4),)))
        path = tmp_path / "bare.pte"
        path.write_bytes(edge.to_executorch().buffer)
    assert b"eh00" not in path.read_bytes()[:64]
    contents = read_pte(path)
    assert (contents.segments_at, contents.delegates, contents.named_data) == (0, (), ())


def test_a_vector_longer_than_the_file_is_refused(float_pte, tmp_path):
    """Its items are not read one by one: four billion of them would take an hour."""
    content = bytearray(float_pte.read_bytes())
    (root,) = struct.unpack_from("<I", content)
    (vtable,) = struct.unpack_from("<i", content, root)
    (field,) = struct.unpack_from("<H", content, root - vtable + 4 + 2 * 1)
    (offset,) = struct.unpack_from("<I", content, root + field)
    content[root + field + offset : root + field + offset + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "long.pte"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="a vector of 4294967295 items exceeds the file"):
        read_pte(path)


def test_delegates_inside_the_program_are_read(exported, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower

        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
        inline = ExecutorchBackendConfig(extract_delegate_segments=False)
        path = tmp_path / "inline.pte"
        path.write_bytes(edge.to_executorch(inline).buffer)
    first, second = read_pte(path).delegates
    assert bytes(first.payload) != bytes(second.payload)
    for delegate in (first, second):
        blob = split_xnnpack_payload(path, delegate.payload)
        assert bytes(blob.graph[4:8]) == b"XN01"
        assert len(blob.constants) > 0 or blob.constant_names


@pytest.mark.parametrize("name", ["none.pte", "folder"])
def test_unreadable_paths_are_refused(name, tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ArtifactError, match=rf"Could not read .*{name}"):
        check_pte(tmp_path / name)


def test_absent_metadata_is_empty(tmp_path):
    assert decode_description(tmp_path, b"", b"") == ({}, ())
