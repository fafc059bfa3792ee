"""A damaged or foreign artifact is an ArtifactError that names the file; nothing crashes."""

import random
import struct
import zlib

import onnx
import pytest
import small_artifacts

from mobiledeploy.artifact.pte_file import read_pte, split_xnnpack_payload
from mobiledeploy.errors import ArtifactError
from mobiledeploy.runtimes.open import open_runner

HEADER = 8
LABELS = zlib.compress(small_artifacts.LABELS.encode())


def noise(count, seed=0):
    return random.Random(seed).randbytes(count)


def refused(path, content):
    """Write `content`, check that it is refused with its name, and return the message."""
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        open_runner(path)
    assert path.name in caught.value.message
    assert caught.value.exit_code == 3
    assert caught.value.remedy
    return caught.value.message


@pytest.mark.parametrize("suffix", ["onnx", "pte"])
@pytest.mark.parametrize(
    "content",
    [b"", b"\0" * 4096, noise(4096), b"<!DOCTYPE html>\n" * 99, b"ET12", b"\0\0\0\0ET12eh00"],
    ids=["empty", "zeros", "noise", "html", "four bytes", "header only"],
)
def test_files_that_are_not_models_are_refused(suffix, content, tmp_path):
    refused(tmp_path / f"bad.{suffix}", content)


@pytest.mark.parametrize("kept", [10, 39, 500, 4000, -1])
def test_a_truncated_pte_is_refused(float_pte, kept, tmp_path):
    message = refused(tmp_path / "short.pte", float_pte.read_bytes()[:kept])
    assert "truncated" in message


@pytest.mark.parametrize("kept", [0.01, 0.5, 0.99])
def test_a_truncated_onnx_is_refused(float_onnx, kept, tmp_path):
    content = float_onnx.read_bytes()
    refused(tmp_path / "short.onnx", content[: int(kept * len(content))])


def test_swapped_suffixes_are_refused(float_onnx, float_pte, tmp_path):
    refused(tmp_path / "swapped.pte", float_onnx.read_bytes())
    refused(tmp_path / "swapped.onnx", float_pte.read_bytes())


def test_a_pte_of_another_schema_version_is_refused(float_pte, tmp_path):
    content = float_pte.read_bytes().replace(b"ET12", b"ET99", 1)
    assert "b'ET99', expected b'ET12'" in refused(tmp_path / "new.pte", content)


def test_a_pte_without_extended_header_is_refused(float_pte, tmp_path):
    content = float_pte.read_bytes().replace(b"eh00", b"xx00", 1)
    assert "XNNPACK network has the identifiers" in refused(tmp_path / "old.pte", content)


def test_a_pte_with_a_random_program_is_refused(float_pte, tmp_path):
    content = float_pte.read_bytes()
    (program_size,) = struct.unpack_from("<Q", content, HEADER + 8)
    for seed in range(20):
        damaged = content[:40] + noise(program_size - 40, seed) + content[program_size:]
        assert len(damaged) == len(content)
        refused(tmp_path / "noise.pte", damaged)


@pytest.mark.parametrize("filling", [bytes, noise], ids=["zeros", "noise"])
def test_a_pte_without_its_segments_is_refused(float_pte, filling, tmp_path):
    content = float_pte.read_bytes()
    (segments_at,) = struct.unpack_from("<Q", content, HEADER + 16)
    damaged = content[:segments_at] + filling(len(content) - segments_at)
    assert "XNNPACK network has the identifiers" in refused(tmp_path / "lost.pte", damaged)


def test_a_pte_with_a_random_xnnpack_graph_is_refused(float_pte, tmp_path):
    content = bytearray(float_pte.read_bytes())
    start, stop = graph_span(float_pte)
    content[start + 8 : stop] = noise(stop - start - 8)
    refused(tmp_path / "noise.pte", bytes(content))


def test_a_pte_with_unknown_constants_is_refused(float_pte, tmp_path):
    start, stop = graph_span(float_pte)
    content = bytearray(float_pte.read_bytes())
    delegate = read_pte(float_pte).delegates[0]
    name = split_xnnpack_payload(float_pte, delegate.payload).constant_names[0]
    at = content.index(name.encode(), start, stop)
    content[at : at + 4] = b"zzzz"
    message = refused(tmp_path / "unknown.pte", bytes(content))
    assert "refers to constants that the program does not have" in message
    content[at : at + 4] = b"\xff\xfe\xff\xfe"
    assert "structure of the program is damaged" in refused(tmp_path / "rotten.pte", bytes(content))


def graph_span(path):
    """Return start and end of the first XNNPACK graph in the file."""
    delegate = read_pte(path).delegates[0]
    graph = bytes(split_xnnpack_payload(path, delegate.payload).graph)
    start = path.read_bytes().index(graph)
    return start, start + len(graph)


def test_the_runtime_s_reason_for_a_rejection_is_reported(float_pte, tmp_path):
    content = float_pte.read_bytes().replace(b"XnnpackBackend", b"MissingBackend")
    message = refused(tmp_path / "foreign.pte", content)
    assert "ExecuTorch" in message
    assert "MissingBackend" in message


def test_an_onnx_with_damaged_metadata_is_refused(float_onnx, tmp_path):
    content = float_onnx.read_bytes().replace(b'{"name": ', b'["name": ')
    assert "its metadata is damaged" in refused(tmp_path / "meta.onnx", content)


@pytest.mark.parametrize(
    ("good", "bad"), [(b'{"name": ', b'["name": '), (b"{", b"\xff"), (b"x\x9c", b"zz")]
)
def test_a_pte_with_damaged_metadata_is_refused(float_pte, good, bad, tmp_path):
    content = float_pte.read_bytes()
    at = content.index(b'{"name": ') if good.startswith(b"{") else content.index(LABELS)
    damaged = content[:at] + content[at:].replace(good, bad, 1)
    assert "its metadata is damaged" in refused(tmp_path / "meta.pte", damaged)


def test_runtimes_print_nothing_to_stderr(float_pte, tmp_path, capfd):
    refused(
        tmp_path / "foreign.pte",
        float_pte.read_bytes().replace(b"XnnpackBackend", b"MissingBackend"),
    )
    with open_runner(float_pte):
        pass
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["missing.pte", "missing.onnx"])
def test_a_missing_file_is_refused(name, tmp_path):
    with pytest.raises(ArtifactError, match=f"There is no file .*{name}"):
        open_runner(tmp_path / name)


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "folder.pte").mkdir()
    with pytest.raises(ArtifactError, match="is a folder"):
        open_runner(tmp_path / "folder.pte")


@pytest.mark.parametrize("name", ["model.mlmodel", "model"])
def test_an_unknown_suffix_is_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"expected \.pte, \.onnx or"):
        open_runner(tmp_path / name)


def test_onnx_metadata_that_is_no_text_is_refused(float_onnx, tmp_path, capfd):
    content = float_onnx.read_bytes().replace(b'"small"', b'"sm\xffll"')
    assert "utf-8" in refused(tmp_path / "bytes.onnx", content)
    assert capfd.readouterr().out == "", "ONNX Runtime announces a fallback on stdout"


def test_a_fixed_batch_of_zero_is_refused(float_onnx, tmp_path):
    model = onnx.load(float_onnx)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 0
    assert "[0, 3, 32, 32]" in refused(tmp_path / "zero.onnx", model.SerializeToString())
