"""Images and labels in `.npz` files; damaged files are refused, wherever the damage is."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from calibration_files import digest_of, images, of_classes, write_npz

from mobiledeploy.data import arrays
from mobiledeploy.data.arrays import read_arrays
from mobiledeploy.data.calibration import load_calibration as load
from mobiledeploy.data.preprocess import default_preprocessing
from mobiledeploy.errors import DataError
from mobiledeploy.network import Preprocessing


def test_arrays_are_normalised_and_then_interpolated_as_torch_does(tmp_path, info):
    pixels = images()
    found = load(write_npz(tmp_path / "a.npz", images=pixels), info)
    mean = np.array([0.485, 0.456, 0.406], np.float32)
    std = np.array([0.229, 0.224, 0.225], np.float32)
    x = torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std).permute(0, 3, 1, 2)
    x = torch.nn.functional.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(found.images, x.numpy(), atol=1e-6, rtol=0)
    assert found.images.flags.c_contiguous


def test_arrays_have_sha256_labels_and_names(tmp_path, info):
    pixels = images()
    path = write_npz(tmp_path / "a.npz", images=pixels, labels=np.arange(10)[::-1])
    found = load(path, info, samples=4)
    chosen = [0, 2, 5, 7]
    assert found.names == tuple(f"a.npz[{i}]" for i in chosen)
    assert found.labels == (9, 7, 4, 2)
    assert found.sha256 == digest_of([pixels[i].tobytes() for i in chosen])


def test_the_interpolation_of_arrays_is_honoured(tmp_path, info):
    path = write_npz(tmp_path / "a.npz", images=images(side=8))
    nearest = Preprocessing(interpolation="nearest")
    found = load(path, replace(info, input=replace(info.input, preprocessing=nearest))).images
    np.testing.assert_array_equal(found[..., ::4, ::4], found[..., 3::4, 3::4])
    assert not np.array_equal(found, load(path, info).images)


def test_arrays_for_a_feature_extractor_have_no_labels(tmp_path, info):
    path = write_npz(tmp_path / "a.npz", images=images(), labels=np.arange(10))
    assert load(path, of_classes(info, 0)).labels is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"z": np.zeros(3)}, "holds `z`; expected `images`"),
        ({"images": images().astype(np.float32)}, "float32 .*expected `images`, uint8"),
        ({"images": images()[0]}, r"uint8 \(16, 16, 3\); expected"),
        ({"images": images(count=0)}, "has no images"),
        ({"images": images(channels=4)}, "4 channels; the network's input has 3"),
        ({"x_train": images()[..., 0]}, r"`x_train` is \(10, 16, 16\), grey images; .* 3 channels"),
        ({"images": images().astype(int) + 1}, "int64 .*expected `images`, uint8"),
        ({"images": images(), "labels": np.zeros(9, int)}, "one integer for each of the 10"),
        ({"images": images(), "labels": np.full(10, 0.5)}, "labels` is float64"),
        ({"images": images(), "labels": np.zeros((10, 2))}, r"labels` is float64 \(10, 2\)"),
        ({"images": images(), "labels": np.full(10, "cat")}, "labels` is <U3"),
        ({"images": images(), "labels": np.full(10, 10)}, "image 0 has label 10; .* 10 classes"),
        ({"images": images(), "labels": np.full(10, -1)}, "image 0 has label -1"),
        (
            {"images": images(), "labels": np.full(10, 2**64 - 1, np.uint64)},
            "image 0 has label 18446744073709551615",
        ),
        ({"images": np.array([{}], dtype=object)}, "Could not read .*a.npz"),
    ],
)
def test_invalid_arrays_are_refused(tmp_path, info, content, message):
    with pytest.raises(DataError, match=message):
        load(write_npz(tmp_path / "a.npz", **content), info)


def test_the_arrays_of_keras_are_taken_with_a_note(tmp_path, info):
    """As `mnist.npz` and `cifar10.load_data` have them, with labels (N, 1)."""
    train, test = images(), images(count=4)[::-1]
    path = write_npz(
        tmp_path / "a.npz",
        x_train=train, y_train=np.arange(10, dtype=np.uint8)[:, None],
        x_test=test, y_test=np.arange(4)[:, None],
    )  # fmt: skip
    evaluation = load(path, info)
    assert evaluation.labels == (0, 1, 2, 3)
    assert evaluation.sha256 == digest_of([image.tobytes() for image in test])
    assert evaluation.notes == ("a.npz: `x_test` was taken, `x_train` not.",)
    calibration_set = load(path, info, for_calibration=True)
    assert calibration_set.labels == tuple(range(10))
    assert calibration_set.notes == ("a.npz: `x_train` was taken, `x_test` not.",)


@pytest.mark.parametrize("names", [("X", "y"), ("data", "labels"), ("arr_0", "arr_1")])
def test_other_usual_names_are_understood(tmp_path, info, names):
    path = write_npz(tmp_path / "a.npz", **dict(zip(names, (images(), np.arange(10)), strict=True)))
    found = load(path, info)
    assert found.labels == tuple(range(10))
    assert found.notes == ()


def test_channels_first_are_rearranged_with_a_note(tmp_path, info):
    expected = load(write_npz(tmp_path / "a.npz", images=images()), info)
    path = write_npz(tmp_path / "b.npz", images=images().transpose(0, 3, 1, 2))
    found = load(path, info)
    np.testing.assert_array_equal(found.images, expected.images)
    assert any("(N, C, H, W)" in note for note in found.notes)


def test_grey_images_need_no_channel_axis(tmp_path, info):
    one_channel = replace(info.input, channels=1, preprocessing=default_preprocessing(1))
    grey = replace(info, input=one_channel)
    flat = load(write_npz(tmp_path / "a.npz", images=images()[..., 0]), grey)
    with_axis = load(write_npz(tmp_path / "b.npz", images=images()[..., :1]), grey)
    np.testing.assert_array_equal(flat.images, with_axis.images)


@pytest.mark.parametrize(
    "labels",
    [
        np.arange(10)[:, None],
        np.arange(10.0),
        np.eye(10, dtype=np.float32),
        np.eye(10, dtype=bool),
    ],
    ids=["column", "floats", "one-hot", "one-hot bools"],
)
def test_labels_of_keras_shapes_are_read(tmp_path, info, labels):
    path = write_npz(tmp_path / "a.npz", images=images(), labels=labels)
    assert load(path, info).labels == tuple(range(10))


def test_pixels_of_another_integer_type_are_the_same_pixels(tmp_path, info):
    wide = load(write_npz(tmp_path / "a.npz", images=images().astype(np.int64)), info)
    narrow = load(write_npz(tmp_path / "b.npz", images=images()), info)
    np.testing.assert_array_equal(wide.images, narrow.images)
    assert wide.sha256 == narrow.sha256


def test_images_that_are_resized_in_parts_equal_those_of_one_batch(tmp_path, info, monkeypatch):
    path = write_npz(tmp_path / "a.npz", images=images())
    whole = load(path, info).images
    monkeypatch.setattr(arrays, "_AT_ONCE", 3)
    np.testing.assert_array_equal(load(path, info).images, whole)


@pytest.mark.parametrize("labels", [np.full(10, 99), np.zeros(9, int), np.full(10, "cat")])
def test_invalid_labels_of_arrays_do_not_stop_a_calibration(tmp_path, info, labels):
    path = write_npz(tmp_path / "a.npz", images=images(), labels=labels)
    with pytest.raises(DataError):
        load(path, info)
    found = load(path, info, for_calibration=True)
    assert (found.count, found.labels) == (10, None)
    assert any("Calibration goes on without labels" in note for note in found.notes)


# --- damaged files --------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [60, 3000])
def test_a_compressed_npz_with_a_flipped_byte_is_refused(tmp_path, info, at):
    np.savez_compressed(tmp_path / "a.npz", images=images())
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[at] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"Could not read .*a\.npz"):
        load(tmp_path / "a.npz", info)


@pytest.mark.parametrize("keep", [0, 10, 2000])
def test_a_truncated_npz_is_refused(tmp_path, info, keep):
    path = write_npz(tmp_path / "a.npz", images=images())
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"Could not read .*a\.npz"):
        load(path, info)


def test_an_npz_with_a_flipped_byte_is_refused(tmp_path, info):
    path = write_npz(tmp_path / "a.npz", images=images())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Could not read .*a\.npz"):
        load(path, info)


def write_archive(path: Path, shape: tuple[int, ...], method: int = zipfile.ZIP_STORED) -> Path:
    """Write an .npz whose header claims a shape; few bytes of data follow."""
    header = io.BytesIO()
    described = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, described)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(range(200)))
    return path


@pytest.mark.parametrize("images_claimed", [10**13, 10**30])
def test_an_npz_that_claims_more_than_fits_is_refused(tmp_path, info, images_claimed):
    path = write_archive(tmp_path / "a.npz", (images_claimed, 4, 4, 3))
    with pytest.raises(DataError, match=r"Could not read .*a\.npz"):
        load(path, info)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (zipfile.ZIP_LZMA, {55: 0x5A, 60: 0x5A}),  # inside the compressed stream
        (zipfile.ZIP_STORED, {8: 99, "directory": (10, 99)}),  # the method of compression
        (zipfile.ZIP_STORED, {6: 1, "directory": (8, 1)}),  # the flag of encryption
    ],
    ids=["damaged LZMA", "unknown compression", "encrypted"],
)
def test_an_npz_that_zipfile_cannot_unpack_is_refused(tmp_path, info, method, changes):
    path = write_archive(tmp_path / "a.npz", (2, 4, 4, 3), method)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    for at, value in changes.items():
        if at == "directory":
            content[directory + value[0]] = value[1]
        else:
            content[at] = value
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Could not read .*a\.npz"):
        load(path, info)


@pytest.mark.parametrize("content", [b"", b"hi", b"\x80\x04K\x01."])
def test_another_file_with_an_npz_suffix_is_refused(tmp_path, info, content):
    """numpy's own message mentions pickles and a setting that users cannot change."""
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz: it is not an \.npz; expected") as error:
        load(tmp_path / "a.npz", info)
    assert "pickle" not in str(error.value)


def test_a_single_array_is_not_an_npz(tmp_path, info):
    np.save(tmp_path / "a.npy", images())
    path = (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a single array, not an \.npz"):
        load(path, info)


PIXELS = np.zeros((2, 8, 8, 3), np.uint8)


def archive(path, **members):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("good", "bad"),
    [(b"(2, 8, 8, 3)", b"(2, 8, 8, 3}"), (b"'descr'", b"'descr("), (b"{", b"(")],
    ids=["brackets", "quotes", "tuple"],
)
def test_a_header_that_is_no_literal_is_refused(good, bad, tmp_path):
    path = archive(tmp_path / "x.npz", images=npy(PIXELS).replace(good, bad, 1))
    with pytest.raises(DataError, match=r"Could not read .*x\.npz"):
        read_arrays(path, 3)


@pytest.mark.parametrize("damaged", ["images", "labels"])
def test_a_member_that_is_no_array_is_refused(damaged, tmp_path):
    members = {"images": npy(PIXELS), "labels": npy(np.arange(2))} | {damaged: b"text"}
    with pytest.raises(DataError, match=f"`{damaged}` is not an array"):
        read_arrays(archive(tmp_path / "x.npz", **members), 3)
