"""Images in tar shards: WebDataset's layout, class folders, damaged and compressed shards."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.data.shards import find_shards, open_shards
from mobiledeploy.data.stream import open_stream
from mobiledeploy.errors import DataError


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return path


def samples(numbers):
    """Return WebDataset's members of samples whose class is their number modulo 10."""
    members = {}
    for number in numbers:
        members[f"{number:06}.jpg.png"] = png(number)
        members[f"{number:06}.cls"] = str(number % 10).encode()
    return members


@pytest.fixture
def shards(tmp_path):
    for shard in range(3):
        first = 4 * shard
        write_tar(tmp_path / "set" / f"set-{shard:03}.tar", samples(range(first, first + 4)))
    return tmp_path / "set"


@pytest.fixture
def unpacked(tmp_path):
    """The same images in class folders."""
    for number in range(12):
        path = tmp_path / "files" / str(number % 10) / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    return tmp_path / "files"


def read(source, info):
    stream = open_stream(source, info)
    (batch,) = stream.batches(0, len(stream.labels), 100)
    return batch


def test_shards_hold_the_same_images_as_a_folder(shards, unpacked, info):
    packed, files = read(shards, info), read(unpacked, info)
    assert packed.labels == (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1)
    order = np.argsort([0, 10, 1, 11, *range(2, 10)])  # the folder's order is by class
    np.testing.assert_array_equal(packed.inputs, files.inputs[order])


def test_one_shard_is_read_alone(shards, info):
    assert read(shards / "set-001.tar", info).labels == (4, 5, 6, 7)


def test_a_sample_reads_only_its_own_members(shards, info):
    stream = open_stream(shards, info, samples=3)
    assert stream.labels == (0, 4, 8)
    assert stream.sha256 != open_stream(shards, info).sha256


def test_folders_inside_a_shard_are_classes(tmp_path, info):
    members = {f"./class{label}/a.png": png(label) for label in range(10)}
    assert read(write_tar(tmp_path / "a.tar", members), info).labels == tuple(range(10))


def test_images_without_labels_are_refused(tmp_path, info):
    path = write_tar(tmp_path / "a.tar", {"a.png": png(0), "b.png": png(1)})
    with pytest.raises(DataError, match="have no labels"):
        open_stream(path, info)


@pytest.mark.parametrize("content", [b"ten", b"10", b"-1", b"", "²".encode()])
def test_an_invalid_class_is_refused(tmp_path, info, content):
    path = write_tar(tmp_path / "a.tar", {"a.png": png(0), "a.cls": content})
    with pytest.raises(DataError, match=r"The class of a\.png in .* expected a number below 10"):
        open_stream(path, info)


def test_an_image_without_a_class_beside_others_is_refused(tmp_path, info):
    path = write_tar(tmp_path / "a.tar", samples([1]) | {"b.png": png(0)})
    with pytest.raises(DataError, match=r"The class of b\.png") as caught:
        open_stream(path, info)
    assert caught.value.remedy == "Write it to b.cls."


def test_other_members_are_counted(tmp_path):
    members = samples([1]) | {"000001.json": b"{}", "._000001.png": b"x", "readme.txt": b"x"}
    found = open_shards(write_tar(tmp_path / "a.tar", members))
    assert found.notes == ("2 members were left aside: neither images nor .cls.",)
    assert found.names == ["a.tar/000001.jpg.png"]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar.zst"])
def test_compressed_shards_are_refused(tmp_path, info, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match="is compressed"):
        open_stream(tmp_path / name, info)


@pytest.mark.parametrize("damage", [1, 30_000, 30_200, 30_500, -9000, "text", "compressed"])
def test_damaged_shards_are_refused(tmp_path, info, damage):
    path = write_tar(tmp_path / "a.tar", samples(range(10)))
    if isinstance(damage, int):
        path.write_bytes(path.read_bytes()[:damage])
    elif damage == "text":
        path.write_bytes(b"no tar\n" * 1000)
    else:
        write_tar(tmp_path / "b.gz", samples([1])).rename(path)
    with pytest.raises(DataError, match=f"Could not read the shard {path}"):
        open_stream(path, info)


def test_a_folder_of_images_has_no_shards(unpacked):
    assert find_shards(unpacked) == []
