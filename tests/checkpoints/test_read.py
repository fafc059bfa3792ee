"""Files that are not checkpoints, and checkpoints that hold more than tensors."""

import argparse
import collections
import os
import pathlib
import pickle
import tarfile
import tempfile
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from mobiledeploy.checkpoints.read import read_checkpoint
from mobiledeploy.errors import WeightsError


def refused(path, message) -> WeightsError:
    with pytest.raises(WeightsError, match=message) as error:
        read_checkpoint(path)
    assert error.value.exit_code == 3
    assert error.value.remedy
    assert str(path.name) in error.value.message
    return error.value


def test_a_folder_is_refused(tmp_path):
    folder = tmp_path / "net.pth"
    folder.mkdir()
    error = refused(folder, "is a folder; expected a checkpoint file")
    assert "one of *.pth, *.pt" in error.remedy


def test_a_folder_that_holds_a_checkpoint_is_refused_with_its_path(tmp_path):
    for name in ("config.json", "model.safetensors", "model.zip"):
        (tmp_path / name).touch()
    error = refused(tmp_path, "is a folder")
    assert error.remedy == (
        f"Pass the path of the file itself: for example {tmp_path / 'model.safetensors'}."
    )


def test_a_too_long_name_is_refused(tmp_path):
    refused(tmp_path / f"{'a' * 300}.pth", "cannot be opened: File name too long")


@pytest.fixture
def ordinary_user():
    """Drop root's permission to read everything."""
    user = os.geteuid()
    os.seteuid(user or 65534)
    yield
    os.seteuid(user)


@pytest.mark.usefixtures("ordinary_user")
def test_a_file_without_read_permission_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "net.pth"
        path.write_bytes(b"x")
        path.chmod(0)
        refused(path, "cannot be opened: Permission denied")


def test_a_missing_file_is_refused(tmp_path):
    refused(tmp_path / "nowhere.pth", "There is no checkpoint")


@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    refused(tmp_path / name, "is empty")


def test_a_file_of_another_kind_is_refused_by_its_name(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"x")
    refused(tmp_path / "net.onnx", "does not have the name of a checkpoint")


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_file_is_refused(saved, share, legacy):
    path = saved(_use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "is damaged")


@pytest.mark.parametrize(
    ("record", "at", "value"),
    [
        (b"PK\x01\x02", 6, 99),  # the version of zip that is needed to read an entry
        (b"PK\x06\x07", 16, 9),  # over how many disks the archive goes
    ],
)
def test_an_archive_with_a_damaged_directory_is_refused(saved, record, at, value):
    path = saved()
    content = bytearray(path.read_bytes())
    content[content.rindex(record) + at] = value
    path.write_bytes(content)
    refused(path, "is damaged")


@pytest.mark.parametrize("keep", [4, 20, 10_000, -10])
def test_a_truncated_safetensors_is_refused(tmp_path, small, keep):
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(small[1].state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "is damaged")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_checkpoint_of_another_pickle_protocol_is_read(tmp_path, legacy):
    path = tmp_path / "net.pth"
    options = {"pickle_protocol": 4, "_use_new_zipfile_serialization": not legacy}
    torch.save({"weight": torch.ones(2)}, path, **options)
    assert torch.equal(read_checkpoint(path).content["weight"], torch.ones(2))


def test_a_flipped_bit_in_a_tensor_is_found_by_the_checksum(saved):
    """torch reads the file without a word and gives other weights."""
    path = saved()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=True)
    error = refused(path, r"is damaged \(the checksum of net/data/\d+ does not match\)")
    assert "download it again" in error.remedy


def test_a_file_without_checksums_is_read(saved, small):
    """`set_crc32_options(False)` writes 0 for every checksum."""
    torch.serialization.set_crc32_options(False)
    try:
        path = saved()
    finally:
        torch.serialization.set_crc32_options(True)
    found = read_checkpoint(path).content
    assert found.keys() == small[1].state_dict().keys()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"<!doctype html><html>404</html>", "is not a checkpoint but an HTML or XML text"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "but a Git LFS pointer"),
        (b'{"weights": [1, 2, 3, 4]}', "but a JSON text"),
        (b"\x1f\x8b\x08\x00" + bytes(20), "but compressed by gzip"),
        (b"\x89HDF\r\n\x1a\n" + bytes(20), "but an HDF5 file"),
        (b"hello world, how are you", r"is not a checkpoint: it begins with b'hello world"),
        (bytes(100), "is not a checkpoint: it begins with"),
        (b"\x00", "is damaged"),
    ],
)
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_file_of_another_kind_is_not_called_damaged(tmp_path, content, kind, name):
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path / name, kind)
    assert ("damaged" in error.message) == ("damaged" in kind)


def test_a_tar_archive_is_refused_as_one(tmp_path):
    with tarfile.open(tmp_path / "net.pth.tar", "w") as archive:
        archive.add(__file__, "net.pth")
    refused(tmp_path / "net.pth.tar", "is a tar archive")


def test_the_content_decides_over_the_suffix(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "a.safetensors")
    safetensors.torch.save_file({"weight": torch.ones(2)}, tmp_path / "b.bin")
    for name in ("a.safetensors", "b.bin"):
        assert torch.equal(read_checkpoint(tmp_path / name).content["weight"], torch.ones(2))


def test_another_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pth", "w") as archive:
        archive.writestr("archive/readme", "hello")
    refused(tmp_path / "net.pth", "is a zip archive that torch.save did not write")


class Bomb:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self):
        return (os.system, (f"touch {self.mark}",))


@pytest.mark.parametrize("write", ["torch", "torch, legacy", "pickle"])
def test_a_pickle_that_runs_code_is_refused_and_not_run(tmp_path, write):
    path, mark = tmp_path / "net.pth", tmp_path / "ran"
    content = {"state_dict": {"weight": torch.zeros(1)}, "bomb": Bomb(str(mark))}
    if write == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=write == "torch")
    error = refused(path, "running code that it names \\(posix.system\\)|run code that it names")
    assert "If you trust it, convert it" in error.remedy
    assert not mark.exists()


# torch deprecates TorchScript, and says so when one is made
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_a_torchscript_program_is_refused_with_the_way_to_convert_it(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "net.pt")
    error = refused(tmp_path / "net.pt", "is a TorchScript program")
    assert "torch.jit.load" in error.remedy


def test_a_compressed_archive_is_refused_before_it_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(10_000_000))
    refused(tmp_path / "net.pth", "would take 10000000 in memory: it is compressed")


def test_plain_metadata_beside_the_weights_is_read(tmp_path):
    content = {
        "state_dict": collections.OrderedDict(weight=torch.ones(2)),
        "args": argparse.Namespace(lr=0.1, data=pathlib.PurePath(), output=tmp_path),
        "best": np.float64(71.8),
        "epoch": np.int64(3),
        "scores": np.arange(3.0),
        "history": collections.defaultdict(list),
    }
    del content["args"].data
    torch.save(content, tmp_path / "net.pth")
    found = read_checkpoint(tmp_path / "net.pth")
    assert torch.equal(found.content["state_dict"]["weight"], torch.ones(2))
    assert found.stand_ins == ()
    assert found.content["args"].lr == 0.1


@pytest.mark.parametrize("name", ["a.pth", "a.pt", "a.bin", "a.ckpt", "a.pth.tar", "a.PTH"])
def test_the_usual_names_are_read(tmp_path, name):
    torch.save({"weight": torch.ones(2)}, tmp_path / name)
    assert torch.equal(read_checkpoint(tmp_path / name).content["weight"], torch.ones(2))


def test_safetensors_are_read(tmp_path):
    safetensors.torch.save_file({"weight": torch.ones(2)}, tmp_path / "a.SAFETENSORS")
    found = read_checkpoint(tmp_path / "a.SAFETENSORS").content
    assert torch.equal(found["weight"], torch.ones(2))
