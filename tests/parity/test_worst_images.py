"""The worst images: order, predictions, labels and thumbnails."""

import io

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.network import Preprocessing
from mobiledeploy.parity.worst_images import worst_images

PREPROCESSING = Preprocessing(mean=(0.5, 0.25, 0.125), std=(0.5, 0.25, 0.125))


def find_worst(exact, other, *, count=9, channels=3, **options):
    inputs = np.zeros((len(exact), channels, 8, 8), np.float32)
    given = {"names": (), "labels": None, "classes": ("cat", "dog"), "preprocessing": PREPROCESSING}
    exact, other = np.array(exact, np.float32), np.array(other, np.float32)
    return worst_images(inputs, exact, other, count=count, **(given | options))


def test_changed_classes_come_first_by_the_margin_of_float():
    exact = [[1, 0], [3, 0], [2, 0], [0, 1]]
    other = [[1, 0], [0, 1], [0, 1], [0, 9]]
    worst = find_worst(exact, other)
    assert [image.name for image in worst] == ["image 1", "image 2", "image 3", "image 0"]
    assert [image.margin for image in worst] == [3, 2, 0, 0]
    assert worst[2].kl_divergence > worst[3].kl_divergence == pytest.approx(0)


def test_only_as_many_as_asked_for():
    assert len(find_worst([[1, 0]] * 5, [[0, 1]] * 5, count=2)) == 2


def test_predictions_and_labels_have_class_names():
    (image,) = find_worst([[2, 0]], [[0, 2]], names=("a.png",), labels=(1,))
    assert image.name == "a.png"
    assert image.label == "dog"
    assert [prediction.label for prediction in image.float_top5] == ["cat", "dog"]
    assert [prediction.label for prediction in image.top5] == ["dog", "cat"]
    assert image.top5[0].probability == pytest.approx(1 / (1 + np.exp(-2)))


def test_classes_without_names_are_numbered():
    (image,) = find_worst([[2, 0]], [[0, 2]], classes=(), labels=(1,))
    assert (image.label, image.top5[0].label) == ("class 1", "class 1")


def test_a_thumbnail_is_the_picture_before_preprocessing():
    (image,) = find_worst([[1, 0]], [[1, 0]])
    picture = Image.open(io.BytesIO(image.thumbnail)).convert("RGB")
    assert picture.getpixel((4, 4)) == pytest.approx((127, 64, 32), abs=6)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_channels_make_a_thumbnail(channels):
    preprocessing = Preprocessing(mean=(0.5,) * channels, std=(0.5,) * channels)
    (image,) = find_worst([[1, 0]], [[1, 0]], channels=channels, preprocessing=preprocessing)
    assert Image.open(io.BytesIO(image.thumbnail)).size == (8, 8)
