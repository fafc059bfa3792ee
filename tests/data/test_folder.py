"""Images and labels of folders as people have them."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mobiledeploy.data import images as image_files
from mobiledeploy.data.calibration import load_calibration
from mobiledeploy.data.folder import find_images
from mobiledeploy.errors import DataError
from mobiledeploy.network import OutputSpec

FORMATS = {
    "a.tif": "TIFF",
    "a.TIFF": "TIFF",
    "a.gif": "GIF",
    "a.jfif": "JPEG",
    "a.jpe": "JPEG",
    "a.avif": "AVIF",
    "a.ppm": "PPM",
    "a.pgm": "PPM",
    "a.dib": "DIB",
    "a.jp2": "JPEG2000",
    "a": "PNG",
    "a.jpg_large": "JPEG",
    "IMG.0001": "JPEG",
    "a.jpg.1": "WEBP",
}


def save(path: Path, kind: str = "PNG", colour: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 48), (colour, 10, 200)).save(path, kind)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_file_that_pillow_reads_is_an_image(name, tmp_path, info):
    save(tmp_path / name, FORMATS[name])
    found = load_calibration(tmp_path, info)
    assert found.names == (name,)
    assert found.notes == ()


def test_an_animation_is_its_first_frame(tmp_path, info):
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / "b.gif")
    animation, still = load_calibration(tmp_path, info).images
    assert (animation == still).all()


def test_what_is_left_aside_is_counted_by_suffix(tmp_path, info):
    save(tmp_path / "a.png")
    for i in range(34):
        (tmp_path / f"{i}.heic").write_bytes(b"\0\0\0\x20ftypheic" + bytes(40))
    for name in ("README", "notes.txt", "labels.csv", "Thumbs.db", ".DS_Store"):
        (tmp_path / name).write_text("file,class_index\na.png,0\n")
    (note,) = load_calibration(tmp_path, info).notes
    assert note.startswith("36 files were left aside, because Pillow does not read them (34 .heic")
    assert "1 .txt" in note
    assert "csv" not in note


def test_a_folder_of_other_files_names_them(tmp_path, info):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x20ftypheic" + bytes(40))
    with pytest.raises(DataError, match=r"There are no images in .* 1 file was left aside.*\.heic"):
        load_calibration(tmp_path, info)


def test_a_format_that_this_pillow_lacks_is_left_aside(tmp_path, info, monkeypatch):
    """Pillow may be built without AVIF."""
    save(tmp_path / "a.png")
    (tmp_path / "b.avif").write_bytes(b"\0\0\0\x20ftypavif" + bytes(40))
    readable = tuple(suffix for suffix in image_files.SUFFIXES if suffix != ".avif")
    monkeypatch.setattr(image_files, "_readable_suffixes", lambda: readable)
    monkeypatch.setattr(image_files, "_readable_formats", lambda: ("PNG",))
    found = load_calibration(tmp_path, info)
    assert found.names == ("a.png",)
    assert "1 .avif" in found.notes[0]


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", ".thumbs"])
def test_thumbnails_of_systems_are_no_images(name, tmp_path, info):
    save(tmp_path / "a.png")
    save(tmp_path / name / "a.png")
    found = load_calibration(tmp_path, info)
    assert found.names == ("a.png",)
    assert found.notes == ()


def test_a_broken_image_is_still_an_error(tmp_path, info):
    save(tmp_path / "a.png")
    (tmp_path / "b.tif").write_bytes(b"II*\0 and nothing else")
    with pytest.raises(DataError, match=r"Could not read the image b\.tif"):
        load_calibration(tmp_path, info)


def test_the_exif_orientation_is_ignored(tmp_path, info):
    """As torchvision and TensorFlow do in training."""
    image = Image.new("RGB", (64, 64))
    image.paste((255, 255, 255), (0, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 90 degrees for display
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", exif=exif)
    plain, tagged = load_calibration(tmp_path, info).images
    assert (plain == tagged).all()


# --- data set roots -------------------------------------------------------------------------------


def labels(folder: Path, info, classes: int):
    found = load_calibration(folder, replace(info, outputs=(OutputSpec(size=classes),)))
    return found.labels, found.notes


@pytest.mark.parametrize(
    "splits", [("train", "val"), ("train", "test"), ("training", "validation"), ("Train", "Valid")]
)
@pytest.mark.parametrize("deep", [True, False], ids=["class folders", "images"])
def test_splits_are_not_taken_for_classes(splits, deep, tmp_path, info):
    for split in splits:
        for i, name in enumerate(("cat", "dog")):
            save(tmp_path / split / (name if deep else "") / f"{i}.png")
    found, notes = labels(tmp_path, info, 2)
    assert found is None
    assert any("holds the splits" in note and str(tmp_path) in note for note in notes)


def test_one_split_has_the_labels_of_its_class_folders(tmp_path, info):
    for split in ("train", "val"):
        for i, name in enumerate(("dog", "cat")):
            save(tmp_path / split / name / f"{i}.png")
    assert labels(tmp_path / "val", info, 2) == ((0, 1), ())


def test_folders_of_folders_are_not_taken_for_classes(tmp_path, info):
    for place in ("north", "south"):
        for name in ("cat", "dog"):
            save(tmp_path / place / name / "a.png")
    found, notes = labels(tmp_path, info, 2)
    assert found is None
    assert any("hold folders, not images" in note for note in notes)


def test_class_folders_may_hold_more_folders_beside_images(tmp_path, info):
    for name in ("cat", "dog"):
        save(tmp_path / name / "a.png")
        save(tmp_path / name / "more" / "b.png")
    assert labels(tmp_path, info, 2) == ((0, 0, 1, 1), ())


def test_deeper_class_folders_are_pointed_to(tmp_path, info):
    for name in ("cat", "dog"):
        save(tmp_path / "train" / name / "a.png")
    found, notes = labels(tmp_path, info, 2)
    assert found is None
    assert any(str(tmp_path / "train") in note for note in notes)


@pytest.mark.parametrize("names", [("images", "masks"), ("JPEGImages", "SegmentationClass")])
def test_masks_beside_images_are_left_aside(names, tmp_path, info):
    for i in range(3):
        save(tmp_path / names[0] / f"{i}.png")
        save(tmp_path / names[1] / f"{i}.png", colour=255)
    found = load_calibration(tmp_path, info)
    assert found.names == tuple(f"{names[0]}/{i}.png" for i in range(3))
    assert found.labels is None
    assert any(names[1] in note and "left aside" in note for note in found.notes)
    assert labels(tmp_path, info, 2)[0] is None


def test_a_class_called_mask_is_a_class(tmp_path, info):
    for name in ("mask", "no_mask"):
        save(tmp_path / name / "a.png")
    assert find_images(tmp_path).names == ("mask/a.png", "no_mask/a.png")
    assert labels(tmp_path, info, 2) == ((0, 1), ())
