"""What the resize functions of phones would change."""

from dataclasses import replace
from types import SimpleNamespace

import networks
import numpy as np
import pytest

from mobiledeploy.data.calibration import embedded_calibration
from mobiledeploy.errors import DataError
from mobiledeploy.parity.report.rows import resize_lines
from mobiledeploy.parity.resizes import measure_resizes
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.check_parity import _measure_resizes


@pytest.fixture(scope="module")
def model():
    return build("v1", weights="random", width=0.25, resolution=64, num_classes=10)


def test_the_same_images_change_nothing_and_others_do(model):
    images = networks.calibration(64, 8)
    noise = np.random.default_rng(0).normal(size=images.images.shape).astype(np.float32)
    sets = {
        "bilinear-aliased": images,
        "lanczos": replace(images, images=images.images + 0.02 * noise),
    }
    same, other = measure_resizes(model, images, sets.__getitem__)
    assert (same.interpolation, same.mean_pixel_difference) == ("bilinear-aliased", 0)
    assert (same.sqnr_db, same.top1_agreement) == (float("inf"), 1)
    assert other.sqnr_db < 60
    expected = 0.02 * np.sqrt(2 / np.pi) * np.mean(model.info.preprocessing.std) * 255
    assert other.mean_pixel_difference == pytest.approx(expected, rel=0.02)


def test_antialiased_ways_are_closer_to_pillow_than_aliased_ones(model):
    images = embedded_calibration(model.info, 6)
    aliased, lanczos = _measure_resizes(SimpleNamespace(original=model), images, None)
    assert (aliased.interpolation, lanczos.interpolation) == ("bilinear-aliased", "lanczos")
    assert 0 < lanczos.mean_pixel_difference < aliased.mean_pixel_difference
    assert aliased.sqnr_db < lanczos.sqnr_db
    first, second = resize_lines(SimpleNamespace(resizes=(aliased, lanczos)))
    assert "Android's createScaledBitmap" in first
    assert f"{lanczos.sqnr_db:.1f} dB" in second
    same = lanczos.model_copy(update={"mean_pixel_difference": 0.0})
    (line,) = resize_lines(SimpleNamespace(resizes=(same,)))
    assert "no other resize changes them" in line


def test_arrays_cannot_be_resized_in_another_way(model, tmp_path):
    with pytest.raises(DataError, match="resized already"):
        _measure_resizes(SimpleNamespace(original=model), None, tmp_path / "images.npz")
