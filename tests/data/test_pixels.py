"""Pixels as an app writes them, from normalised images and back."""

from dataclasses import replace

import networks
import numpy as np
import pytest

from mobiledeploy.data.pixels import (
    artifact_inputs,
    colours_reversed,
    folded_inputs,
    round_to_pixels,
)
from mobiledeploy.data.preprocess import normalize
from mobiledeploy.errors import DataError
from mobiledeploy.network import INPUT_FORMATS, InputSpec, Preprocessing

RGB = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)


def spec(format_, channels=3, preprocessing=None):
    return InputSpec(
        channels=channels,
        height=4,
        width=6,
        preprocessing=preprocessing or Preprocessing(),
        format=INPUT_FORMATS[format_],
    )


def normalised(pixels, preprocessing=None):
    images = normalize(pixels.astype(np.float32), preprocessing or Preprocessing())
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("format_", "order"), [("rgba-u8", [0, 1, 2]), ("bgra-u8", [2, 1, 0]), ("rgb-u8", [0, 1, 2])]
)
def test_pixels_are_recovered_in_the_formats_order(format_, order):
    found = artifact_inputs(normalised(RGB), spec(format_))
    assert found.dtype == np.uint8
    assert found.shape[1:] == spec(format_).artifact_shape
    np.testing.assert_array_equal(found[..., :3], RGB[..., order])
    assert (found[..., 3:] == 255).all()
    planes = folded_inputs(found, spec(format_))
    assert planes.shape[1:] == spec(format_).folded_shape[1:]
    np.testing.assert_array_equal(planes[:, 0], RGB[..., order[0]])


@pytest.mark.parametrize("format_", ["rgba-u8", "bgra-u8", "rgb-u8", "gray-u8"])
def test_planes_are_the_same_pixels(format_):
    channels = 1 if format_ == "gray-u8" else 3
    grey = Preprocessing(mean=(0.4,) * channels, std=(0.2,) * channels)
    pixels, planes = (spec(name, channels, grey) for name in (format_, f"{format_}-nchw"))
    images = normalised(RGB[..., :channels], grey)
    found = artifact_inputs(images, planes)
    assert found.flags.c_contiguous
    assert found.shape[1:] == planes.artifact_shape
    expected = artifact_inputs(images, pixels)
    np.testing.assert_array_equal(found, expected.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(folded_inputs(found, planes), folded_inputs(expected, pixels))


@pytest.mark.parametrize("format_", ["float", "rgba-u8", "rgb-u8", "bgra-u8-nchw", "rgb-u8-nchw"])
def test_colours_are_reversed_and_alpha_stays(format_):
    image = spec(format_)
    given = artifact_inputs(normalised(RGB), image)
    found = colours_reversed(given, image).transpose(image.format.planes_axes)
    planes = given.transpose(image.format.planes_axes)
    np.testing.assert_array_equal(found[:, :3], planes[:, 2::-1])
    np.testing.assert_array_equal(found[:, 3:], planes[:, 3:])


def test_every_pixel_value_survives_any_usual_normalisation():
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 8, 32, 1)
    for mean, std in ((0.5, 0.5), (0.0, 1.0), (0.485, 0.229), (0.1307, 0.3081)):
        preprocessing = Preprocessing(mean=(mean,), std=(std,))
        image = replace(spec("gray-u8", 1, preprocessing), height=8, width=32)
        np.testing.assert_array_equal(artifact_inputs(normalised(ramp, preprocessing), image), ramp)


def test_a_float_input_is_passed_on():
    images = normalised(RGB)
    assert artifact_inputs(images, spec("float")) is images
    assert folded_inputs(images, spec("float")) is images


@pytest.mark.parametrize("shift", [0.5, -300, 300])
def test_images_that_were_not_made_from_pixels_are_refused(shift):
    images = normalised(RGB)
    images[1, 2, 3, 4] += shift / 255
    with pytest.raises(DataError, match=r"not made from 8-bit pixels, .* rgba-u8 takes"):
        artifact_inputs(images, spec("rgba-u8"))


def test_resized_images_become_the_nearest_pixels():
    images = networks.pixels(32, count=2)
    blurred = (images + np.roll(images, 1, -1)) / 2
    image = replace(spec("rgba-u8"), height=32, width=32)
    with pytest.raises(DataError):
        artifact_inputs(blurred, image)
    rounded = blurred.copy()
    round_to_pixels(rounded, Preprocessing())
    artifact_inputs(rounded, image)
    steps = np.abs(rounded - blurred) * 255 * np.array(Preprocessing().std)[:, None, None]
    assert 0.4 < steps.max() <= 0.501
