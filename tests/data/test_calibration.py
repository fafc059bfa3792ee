"""Loading a calibration set: from a folder, within limits, and the bundled one."""

import os
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from calibration_files import digest_of, images, of_classes, write_npz
from PIL import Image

from mobiledeploy.data import calibration
from mobiledeploy.data.calibration import embedded_calibration
from mobiledeploy.data.calibration import load_calibration as load
from mobiledeploy.data.preprocess import default_preprocessing, preprocess
from mobiledeploy.errors import DataError, UsageError
from mobiledeploy.network import Preprocessing
from mobiledeploy.stages import evenly_spread

PREPROCESSING = Preprocessing()


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


def test_preprocessing_for_other_channels_is_refused_before_anything_is_read(folder, info):
    grey = replace(info, input=replace(info.input, channels=1))
    with pytest.raises(UsageError, match=r"mean is .* needs 1"):
        load(folder, grey)


def test_grey_networks_get_grey_images(folder, info):
    one_channel = replace(info.input, channels=1, preprocessing=default_preprocessing(1))
    found = load(folder, replace(info, input=one_channel))
    assert found.images.shape == (10, 1, 32, 32)


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
    source = load(Path("embedded"), info).source
    assert source == "./embedded"
    assert load(Path(source), info).count == 1


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
