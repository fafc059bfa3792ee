"""Images that cannot be decoded are refused by their names."""

import io

import pytest
from PIL import Image

from mobiledeploy.data.calibration import load_calibration as load
from mobiledeploy.errors import DataError


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
