from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.data.preprocess import check_preprocessing, default_preprocessing, preprocess
from mobiledeploy.errors import DataError, UsageError
from mobiledeploy.network import Preprocessing

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


def published(image: Image.Image, resolution: int) -> np.ndarray:
    """The evaluation transform of the published ImageNet weights, reimplemented."""
    short = round(resolution * 256 / 224)
    scale = short / min(image.size)
    image = image.convert("RGB").resize(
        [max(short, round(side * scale)) for side in image.size], Image.BILINEAR
    )
    left, top = [(side - resolution) // 2 for side in image.size]
    image = image.crop((left, top, left + resolution, top + resolution))
    return ((np.asarray(image, np.float32) / 255 - MEAN) / STD).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(256, 341), (500, 333), (100, 100), (37, 411)])
@pytest.mark.parametrize("resolution", [96, 128, 160, 192, 224])
def test_the_default_is_the_published_evaluation_transform(tmp_path, make_image, size, resolution):
    with Image.open(make_image(tmp_path / "a.png", size=size)) as image:
        found = preprocess(image, Preprocessing(), resolution)
        expected = published(image, resolution)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)


@pytest.mark.shared
def test_photographs_equal_the_published_transform(shared: Path):
    for path in sorted((shared / "data/imagenet-sample/eval").glob("*.jpg"))[:5]:
        with Image.open(path) as image:
            np.testing.assert_array_equal(
                preprocess(image, Preprocessing(), 224), published(image, 224)
            )


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_converted_to_the_networks_channels(tmp_path, make_image, mode, channels):
    path = make_image(tmp_path / ("a.tif" if mode == "CMYK" else "a.png"), mode=mode)
    with Image.open(path) as image:
        x = preprocess(image, default_preprocessing(channels), 32)
    assert x.shape == (channels, 32, 32)
    assert x.std() > 0.1


def test_grey_is_the_luminance_of_the_colours():
    image = Image.new("RGB", (32, 32), (255, 0, 0))
    x = preprocess(image, Preprocessing(mean=(0.0,), std=(1.0,), crop_pct=1.0), 32)
    np.testing.assert_allclose(x, 76 / 255, atol=1e-7)  # 0.299 of red (ITU-R 601)


def test_a_palette_with_transparency_raises_no_warning():
    image = Image.new("P", (32, 32))
    image.info["transparency"] = b"\x00\x80"
    assert preprocess(image, Preprocessing(), 32).shape == (3, 32, 32)


@pytest.mark.parametrize("interpolation", ["nearest", "bicubic"])
def test_the_interpolation_is_honoured(tmp_path, make_image, interpolation):
    with Image.open(make_image(tmp_path / "a.png", size=(80, 80))) as image:
        chosen = preprocess(image, Preprocessing(interpolation=interpolation), 32)
        bilinear = preprocess(image, Preprocessing(), 32)
    assert np.abs(chosen - bilinear).max() > 0.1


def test_crop_pct_1_keeps_the_whole_short_side():
    image = Image.new("L", (64, 32), 0)
    image.paste(255, (16, 0, 48, 32))  # the centre square, exactly
    whole = Preprocessing(mean=(0.0,), std=(1.0,), crop_pct=1.0)
    assert preprocess(image, whole, 32).min() == 1.0


def test_sixteen_bit_pixels_are_refused_rather_than_clipped():
    with pytest.raises(DataError, match="8 bits per channel"):
        preprocess(Image.new("I;16", (32, 32), 40000), default_preprocessing(1), 32)


def test_two_channels_need_arrays():
    with pytest.raises(DataError, match=r"2 channels; an image file has 1 .*3 .*4") as refused:
        preprocess(Image.new("RGB", (32, 32)), default_preprocessing(2), 32)
    assert ".npz" in refused.value.remedy


def test_preprocessing_without_rgb_has_the_mean_of_the_three_channels():
    assert default_preprocessing(3) == Preprocessing()
    assert default_preprocessing(1).mean == pytest.approx((0.449,))
    assert len(default_preprocessing(4).std) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.5,)}, r"mean is \(0.5,\).* needs 3"),
        ({"std": (0.2, 0.2, float("nan"))}, r"std is .*nan.* needs 3, one finite"),
        ({"std": (0.2, 0.0, 0.2)}, "expected values for pixels"),
        ({"std": (58.395, 57.12, 57.375)}, "expected values for pixels"),
        ({"mean": (123.675, 116.28, 103.53)}, r"expected values for pixels in \[0, 1\]"),
        ({"mean": (0.5, -0.5, 0.5)}, r"expected values for pixels in \[0, 1\]"),
        ({"crop_pct": 0.0}, "crop-pct is 0.0"),
        ({"crop_pct": 1.5}, "crop-pct is 1.5"),
        ({"interpolation": "hamming"}, "no interpolation 'hamming'"),
    ],
)
def test_preprocessing_that_does_not_fit_the_network_is_refused(change, message):
    with pytest.raises(UsageError, match=message):
        check_preprocessing(replace(Preprocessing(), **change), 3)


@pytest.mark.parametrize(("rows", "columns"), [(40, 80), (80, 40), (60, 60)])
def test_an_input_that_is_not_square_is_covered_and_cropped_in_proportion(rows, columns):
    """A gradient keeps its slope in both directions: nothing is stretched."""
    y, x = np.mgrid[:120, :160]
    image = Image.fromarray(np.stack([x, y, x], -1).astype(np.uint8))
    plain = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), crop_pct=0.8)
    pixels = preprocess(image, plain, (rows, columns)) * 255
    assert pixels.shape == (3, rows, columns)
    factor = min(120 * 0.8 / rows, 160 * 0.8 / columns)
    across = (pixels[0, :, -6] - pixels[0, :, 5]) / (columns - 11)
    down = (pixels[1, -6] - pixels[1, 5]) / (rows - 11)
    np.testing.assert_allclose(np.concatenate([across, down]), factor, rtol=0.1)
    np.testing.assert_allclose(pixels[0].mean(), 79.5, atol=1)
    np.testing.assert_allclose(pixels[1].mean(), 59.5, atol=1)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_bilinear_without_antialiasing_reads_two_pixels_of_four(mode, channels):
    """A quarter of the width: the centre of each new pixel lies between the middle two of four."""
    columns = np.tile(np.array([0, 40, 80, 250] * 32, np.uint8), (128, 1))
    image = Image.fromarray(columns).convert(mode)
    zero_to_one = {"mean": (0.0,) * channels, "std": (1.0,) * channels, "crop_pct": 1.0}
    aliased = Preprocessing(**zero_to_one, interpolation="bilinear-aliased")
    np.testing.assert_allclose(preprocess(image, aliased, 32) * 255, 60, atol=1e-3)
    averaging = preprocess(image, Preprocessing(**zero_to_one), 32) * 255
    assert averaging.mean() == pytest.approx((0 + 40 + 80 + 250) / 4, abs=3)
