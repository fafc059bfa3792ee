import hashlib
import io
import os
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mobiledeploy.data import arrays, calibration
from mobiledeploy.data.calibration import embedded_calibration, load_calibration
from mobiledeploy.data.preprocess import default_preprocessing, preprocess
from mobiledeploy.errors import DataError, UsageError
from mobiledeploy.network import NetworkInfo, Preprocessing
from mobiledeploy.stages import evenly_spread

PREPROCESSING = Preprocessing()


def load(source: Path, info: NetworkInfo, **options):
    return load_calibration(source, info, **options)


def of_classes(info: NetworkInfo, count: int) -> NetworkInfo:
    return replace(info, outputs=(replace(info.outputs[0], size=count),))


def digest_of(contents: list[bytes]) -> str:
    lines = [hashlib.sha256(content).hexdigest() + "\n" for content in contents]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_folder_gives_its_images_in_the_order_of_their_names(folder, info):
    found = load(folder, info)
    assert found.names == tuple(f"{i}.png" for i in range(10))
    assert found.count == 10
    assert found.labels is None
    for name, pixels in zip(found.names, found.images, strict=True):
        with Image.open(folder / name) as image:
            np.testing.assert_array_equal(pixels, preprocess(image, PREPROCESSING, 32))


def test_the_sha256_is_of_the_files_in_order(folder, info):
    contents = [(folder / f"{i}.png").read_bytes() for i in range(10)]
    assert load(folder, info).sha256 == digest_of(contents)


def test_another_order_is_another_set(folder, info):
    before = load(folder, info).sha256
    (folder / "0.png").rename(folder / "a.png")
    assert load(folder, info).sha256 != before


def test_samples_are_spread_evenly_over_the_ordered_set(folder, info):
    found = load(folder, info, samples=4)
    assert found.names == ("0.png", "2.png", "5.png", "7.png")
    assert found.sha256 == digest_of([(folder / name).read_bytes() for name in found.names])


def test_all_samples_are_the_whole_set(folder, info):
    assert load(folder, info, samples=10).sha256 == load(folder, info).sha256


@pytest.mark.parametrize("samples", [0, -1])
def test_fewer_than_one_sample_is_refused(folder, info, samples):
    with pytest.raises(DataError, match=f"samples is {samples}; at least 1"):
        load(folder, info, samples=samples)


def test_more_samples_than_images_are_refused(folder, info):
    with pytest.raises(DataError, match="has 10 images, fewer than the 11 samples"):
        load(folder, info, samples=11)


def test_hidden_files_and_other_files_are_no_images(folder, info):
    (folder / "._0.png").write_bytes(b"resource fork")
    (folder / "notes.txt").write_text("taken in May")
    (folder / ".thumbs").mkdir()
    (folder / ".thumbs" / "0.png").write_bytes(b"thumbnail")
    assert load(folder, info).count == 10


def test_links_to_images_and_folders_are_followed(tmp_path, folder, info, make_image):
    linked = tmp_path / "linked"
    make_image(linked / "0.png", seed=0)
    (linked / "1.png").symlink_to(folder / "1.png")
    (linked / "more").symlink_to(folder, target_is_directory=True)
    (linked / "again").symlink_to(folder, target_is_directory=True)
    twice = [f"{name}/{i}.png" for name in ("again", "more") for i in range(10)]
    assert load(linked, info).names == ("0.png", "1.png", *twice)


@pytest.mark.parametrize("target", [".", "..", "inner"])
def test_a_loop_of_links_ends(folder, info, make_image, target):
    make_image(folder / "inner" / "a.png")
    (folder / "inner" / "loop").symlink_to(folder / target, target_is_directory=True)
    found = load(folder, info).names
    assert found == (*(f"{i}.png" for i in range(10)), "inner/a.png")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("gone.png", r"Could not read the image 5\.png"),
        ("5.png", r"Could not read .*/5\.png: Too many levels of symbolic links"),
    ],
    ids=["to nothing", "to itself"],
)
def test_an_image_that_is_a_dangling_link_is_named(folder, info, target, message):
    (folder / "5.png").unlink()
    (folder / "5.png").symlink_to(target)
    with pytest.raises(DataError, match=message):
        load(folder, info)


def test_a_pipe_with_the_name_of_an_image_is_refused(folder, info):
    os.mkfifo(folder / "pipe")
    (folder / "link.png").symlink_to("pipe")
    with pytest.raises(DataError, match=r"link\.png is a named pipe"):
        load(folder, info)


def test_a_folder_that_cannot_be_listed_is_named(folder, info, monkeypatch):
    (folder / "shut").mkdir()
    entries = Path.iterdir

    def iterdir(path: Path):
        if path.name == "shut":
            raise PermissionError(13, "Permission denied", str(path))
        return entries(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)  # root may look into every real one
    with pytest.raises(DataError, match=r"Could not look for images in .*shut: Permission denied"):
        load(folder, info)


def test_labels_come_from_labels_csv(folder, info):
    lines = [f"{i}.png,{9 - i}" for i in range(10)]
    (folder / "labels.csv").write_text("\n".join(["file,class_index", *lines]))
    assert load(folder, info).labels == tuple(range(9, -1, -1))
    assert load(folder, info, samples=4).labels == (9, 7, 4, 2)


def test_labels_come_from_one_subfolder_per_class(tmp_path, make_image, info):
    for label in ("cat", "ant"):
        make_image(tmp_path / "images" / label / "1.png", seed=ord(label[0]))
    make_image(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "images" / "bee").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    found = load(tmp_path / "images", of_classes(info, 3))
    assert found.names == ("ant/1.png", "bee/1.png", "cat/1.png")
    assert found.labels == (0, 1, 2)


def test_a_part_of_the_classes_gives_no_labels(tmp_path, make_image, info):
    """With three of ten classes the folder does not tell the index of `cat`."""
    for label in ("cat", "ant", "bee"):
        make_image(tmp_path / label / "1.png")
    assert load(tmp_path, info).labels is None


def test_a_feature_extractor_has_no_labels(folder, info):
    (folder / "labels.csv").write_text("file,class_index\n0.png,1\n")
    features = of_classes(info, 0)
    assert load(folder, features).labels is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,class_index\n0.png,1\n", "no line for 1.png"),
        ("name,label\n0.png,1\n", "columns name, label; expected file and class_index"),
        ("", "columns none; expected"),
        ("file,class_index\n0.png,10\n", "line 2: class_index is '10'; .* 10 classes"),
        ("file,class_index\n0.png,tench\n", "line 2: class_index is 'tench'"),
        ("file,class_index\n0.png\n", "line 2: class_index is ''"),
    ],
)
def test_an_invalid_labels_csv_is_refused(folder, info, content, message):
    (folder / "labels.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        load(folder, info)


def test_a_binary_labels_csv_is_refused(folder, info):
    (folder / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"Could not read .*labels\.csv"):
        load(folder, info)


def test_a_missing_folder_is_an_error(tmp_path, info):
    with pytest.raises(DataError, match=r"There is no file or folder .*nowhere"):
        load(tmp_path / "nowhere", info)


def test_an_empty_folder_is_an_error(tmp_path, info):
    with pytest.raises(DataError, match="There are no images in"):
        load(tmp_path, info)


def test_a_folder_without_images_is_an_error(tmp_path, info):
    (tmp_path / "notes.txt").write_text("none here")
    with pytest.raises(DataError, match="There are no images in"):
        load(tmp_path, info)


def test_a_single_image_is_not_a_calibration_set(tmp_path, make_image, info):
    with pytest.raises(DataError, match=r"neither a folder nor an \.npz"):
        load(make_image(tmp_path / "a.png"), info)


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_an_unreadable_image_is_named(folder, make_image, info, damage, suffix):
    bad = make_image(folder / f"bad.{suffix}", size=(64, 64))
    content = bad.read_bytes()
    bad.write_bytes(
        {"truncated": content[: len(content) // 2], "text": b"not an image", "empty": b""}[damage]
    )
    with pytest.raises(DataError, match=rf"Could not read the image bad\.{suffix}"):
        load(folder, info)


def test_an_unknown_image_format_is_reported(folder, info):
    (folder / "0.png").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"image 0\.png: its format is not an image format$"):
        load(folder, info)


def test_a_png_with_a_broken_chunk_is_named(folder, make_image, info):
    path = make_image(folder / "0.png", size=(256, 256))  # noise: too large for one chunk
    chunks = path.read_bytes().split(b"IDAT")
    assert len(chunks) > 2
    path.write_bytes(b"IDAT".join(chunks[:2]) + b"\0\1\2\3" + b"IDAT".join(chunks[2:]))
    with pytest.raises(DataError, match=r"Could not read the image 0\.png: broken PNG"):
        load(folder, info)


def test_a_damaged_image_of_another_format_than_its_name_says_is_named(folder, info):
    """Pillow chooses the decoder by content, and decoders raise any exception."""
    content = io.BytesIO()
    Image.new("RGB", (40, 40)).save(content, "DDS")
    damaged = bytearray(content.getvalue())
    damaged[80:84] = bytes(4)  # the flags of its pixel format
    (folder / "0.jpg").write_bytes(damaged)
    with pytest.raises(DataError, match=r"Could not read the image 0\.jpg: Unknown pixel format"):
        load(folder, info)


def test_a_decompression_bomb_is_named(folder, info, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"Could not read the image 0\.png: Image size"):
        load(folder, info)


def test_an_image_with_pixels_of_another_kind_is_named(folder, info):
    Image.new("I;16", (40, 40), 40000).save(folder / "x-ray.png")
    with pytest.raises(DataError, match=r"x-ray\.png: .* 8 bits per channel"):
        load(folder, info)


def test_preprocessing_for_other_channels_is_refused_before_anything_is_read(folder, info):
    grey = replace(info, input=replace(info.input, channels=1))
    with pytest.raises(UsageError, match=r"mean is .* needs 1"):
        load(folder, grey)


def test_grey_networks_get_grey_images(folder, info):
    one_channel = replace(info.input, channels=1, preprocessing=default_preprocessing(1))
    found = load_calibration(folder, replace(info, input=one_channel))
    assert found.images.shape == (10, 1, 32, 32)


# --- .npz ---------------------------------------------------------------------------------------


def write_npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def images(count=10, side=16, channels=3) -> np.ndarray:
    shape = (count, side, side, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


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
    found = load_calibration(
        path, replace(info, input=replace(info.input, preprocessing=nearest))
    ).images
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


# --- calibration ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table",
    [
        "file,class_index\n0.png,1\n",
        "file,class_index\n" + "".join(f"{i}.png,99\n" for i in range(10)),
        "name,weight\n0.png,1\n",
        b"\xff\xfe\x00",
    ],
)
def test_invalid_labels_of_a_folder_do_not_stop_a_calibration(folder, info, table):
    (folder / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(DataError):
        load(folder, info)
    found = load(folder, info, for_calibration=True)
    assert (found.count, found.labels) == (10, None)
    assert any("Calibration goes on without labels" in note for note in found.notes)


@pytest.mark.parametrize("labels", [np.full(10, 99), np.zeros(9, int), np.full(10, "cat")])
def test_invalid_labels_of_arrays_do_not_stop_a_calibration(tmp_path, info, labels):
    path = write_npz(tmp_path / "a.npz", images=images(), labels=labels)
    with pytest.raises(DataError):
        load(path, info)
    found = load(path, info, for_calibration=True)
    assert (found.count, found.labels) == (10, None)
    assert any("Calibration goes on without labels" in note for note in found.notes)


def test_labels_are_needed_of_the_chosen_images_only(folder, info):
    (folder / "labels.csv").write_text("file,class_index\n0.png,3\n5.png,4\n")
    assert load(folder, info, samples=2).labels == (3, 4)


@pytest.mark.parametrize("kind", ["folder", "npz"])
def test_of_thousands_of_images_a_calibration_takes_a_spread_sample(
    kind, folder, tmp_path, info, monkeypatch
):
    monkeypatch.setattr(calibration, "_MOST_FOR_CALIBRATION", 4)
    source = folder if kind == "folder" else write_npz(tmp_path / "a.npz", images=images())
    found = load(source, info, for_calibration=True)
    assert found.names == load(source, info, samples=4).names
    assert found.sha256 == load(source, info, samples=4).sha256
    assert any("has 10 images: 4 of them were taken" in note for note in found.notes)
    assert load(source, info, samples=6, for_calibration=True).count == 6
    assert load(source, info).count == 10


def test_large_inputs_lower_the_number_of_images(folder, info, monkeypatch):
    monkeypatch.setattr(calibration, "_MOST_BYTES_FOR_CALIBRATION", 3 * 4 * 3 * 32 * 32)
    assert load(folder, info, for_calibration=True).count == 3


def test_only_the_chosen_images_are_decoded(folder, info):
    (folder / "1.png").write_bytes(b"not an image")
    assert load(folder, info, samples=2).names == ("0.png", "5.png")


@pytest.mark.parametrize("free", [10_000, None])
def test_more_images_than_fit_into_memory_are_refused(folder, info, monkeypatch, free):
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(calibration, "free_bytes", lambda: free)
    if free is None:  # not known beforehand: the allocation fails
        monkeypatch.setattr(calibration.np, "empty", full)
    message = "10 images of .* take 0.0 GB of memory" + ("; 0.0 GB are free" if free else r"\.")
    with pytest.raises(DataError, match=message) as error:
        load(folder, info)
    assert "--samples" in error.value.remedy


def test_images_are_held_once(tmp_path, info, make_image):
    """Decoding them into a list and stacking it would hold them twice."""
    for i in range(40):
        make_image(tmp_path / f"{i:03}.png", seed=i)
    large = replace(info, input=replace(info.input, height=224, width=224))
    load(tmp_path, large, samples=2)  # what is loaded once
    tracemalloc.start()
    found = load(tmp_path, large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.3 * found.images.nbytes


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


# --- embedded -----------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """Replace the installed package's folder."""
    (tmp_path / "embedded").mkdir()
    monkeypatch.setattr(calibration.resources, "files", lambda _package: tmp_path)
    return tmp_path / "embedded"


def test_the_package_has_bundled_images(package, make_image, info):
    for index in range(5):
        make_image(package / f"{index}.webp", seed=index)
    (package / "README.md").write_text("where they come from")
    (package / "._0.webp").write_bytes(b"resource fork")
    found = embedded_calibration(info)
    assert found.source == "embedded"
    assert found.names == tuple(f"{i}.webp" for i in range(5))
    assert found.images.shape == (5, 3, 32, 32)
    expected = digest_of([(package / name).read_bytes() for name in found.names])
    assert found.sha256 == expected


def test_a_folder_called_embedded_is_not_the_bundled_set(tmp_path, monkeypatch, make_image, info):
    (tmp_path / "embedded").mkdir()
    make_image(tmp_path / "embedded" / "0.png")
    monkeypatch.chdir(tmp_path)
    source = load_calibration(Path("embedded"), info).source
    assert source == "./embedded"
    assert load_calibration(Path(source), info).count == 1


def test_bundled_images_may_be_sampled(package, make_image, info):
    for index in range(5):
        make_image(package / f"{index}.png", seed=index)
    assert embedded_calibration(info, 2).names == ("0.png", "2.png")
    with pytest.raises(DataError, match="The bundled set has 5 images"):
        embedded_calibration(info, 6)


@pytest.mark.parametrize("there", [True, False])
def test_a_package_without_images_is_an_error(package, info, there):
    if not there:
        package.rmdir()
    with pytest.raises(DataError, match="has no bundled calibration images") as refused:
        embedded_calibration(info)
    assert "--calib-data" in refused.value.remedy


@pytest.mark.shared
def test_the_measurement_images_load_with_their_labels(shared, info):
    full = of_classes(info, 1000)
    found = load(shared / "data/imagenet-sample/eval", full, samples=20)
    assert found.labels is not None
    assert [int(name[:3]) for name in found.names] == list(found.labels)


def test_a_set_is_sampled_by_the_rule_that_loads_it(folder, info):
    """Number i is number floor(i count / N); in floats 11 (30 / 22) would be less than 15."""
    chosen = evenly_spread(30, 22)
    assert chosen == [i * 30 // 22 for i in range(22)]
    assert chosen[11] == 15
    assert load(folder, info).spread(4).names == load(folder, info, samples=4).names
