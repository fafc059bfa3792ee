"""Labelled images batch by batch."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.data.calibration import load_calibration
from mobiledeploy.data.stream import open_stream
from mobiledeploy.errors import DataError
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import Preprocessing, WeightsProvenance

INFO = ModelSpec(family="v2", resolution=32, num_classes=3, weights="random").network_info(
    WeightsProvenance(source="random", origin="seed 0"), Preprocessing(), ()
)


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for label in ("a", "b", "c"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for index in range(4):
            pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "set" / label / f"{index}.png")
    return tmp_path / "set"


@pytest.fixture
def npz(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=pixels, labels=np.arange(12) % 3)
    return tmp_path / "set.npz"


@pytest.mark.parametrize("kind", ["folder", "npz"])
@pytest.mark.parametrize("size", [1, 5, 12, 50])
def test_batches_are_the_images_in_order(request, kind, size):
    source = request.getfixturevalue(kind)
    whole = load_calibration(source, INFO)
    stream = open_stream(source, INFO)
    batches = list(stream.batches(0, 12, size))
    assert max(len(batch.labels) for batch in batches) == min(size, 12)
    np.testing.assert_array_equal(np.concatenate([b.inputs for b in batches]), whole.images)
    assert tuple(label for batch in batches for label in batch.labels) == whole.labels


def test_a_range_of_a_sample(folder):
    stream = open_stream(folder, INFO, samples=6)
    assert stream.labels == (0, 0, 1, 1, 2, 2)
    (batch,) = stream.batches(2, 5, 16)
    assert batch.labels == (1, 1, 2)


def test_the_digest_depends_on_names_sizes_and_labels(folder, npz):
    first = open_stream(folder, INFO).sha256
    assert first == open_stream(folder, INFO).sha256
    assert first != open_stream(folder, INFO, samples=6).sha256
    (folder / "a" / "0.png").rename(folder / "a" / "00.png")
    assert first != open_stream(folder, INFO).sha256
    assert open_stream(npz, INFO).sha256 != first


def test_images_without_labels_are_refused(tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="have no labels"):
        open_stream(tmp_path, INFO)
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 32, 32, 3), np.uint8))
    with pytest.raises(DataError, match="have no labels"):
        open_stream(tmp_path / "a.npz", INFO)


def test_no_images_and_too_few_are_refused(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="There are no images"):
        open_stream(tmp_path / "empty", INFO)
    with pytest.raises(DataError, match="12 images, fewer than the 13"):
        open_stream(folder, INFO, samples=13)
    with pytest.raises(DataError, match=r"neither a folder, a \.tar nor"):
        open_stream(tmp_path / "missing", INFO)


def test_a_damaged_image_is_named(folder):
    (folder / "b" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b/1\.png"):
        list(open_stream(folder, INFO).batches(0, 12, 4))


def test_only_a_few_batches_are_decoded_ahead(folder):
    """The memory does not grow with the number of images."""
    stream = open_stream(folder, INFO)
    read = []
    counting = SimpleNamespace(read=stream.read)

    def recorded(indices):
        read.append(len(indices))
        return counting.read(indices)

    object.__setattr__(stream, "read", recorded)
    batches = stream.batches(0, 12, 1)
    next(batches)
    time.sleep(0.3)  # the threads would decode all twelve in the meantime
    assert sum(read) <= 6
    batches.close()
