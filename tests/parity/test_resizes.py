"""What the resize functions of phones would change."""

from dataclasses import replace

import networks
import numpy as np
import pytest
from parity_reports import make_report, with_
from PIL import Image

from mobiledeploy.data.calibration import embedded_calibration, load_calibration
from mobiledeploy.parity.report.markdown import to_markdown
from mobiledeploy.parity.report.rows import notes
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
    aliased, lanczos = _measure_resizes(model, images)
    assert (aliased.interpolation, lanczos.interpolation) == ("bilinear-aliased", "lanczos")
    assert 0 < lanczos.mean_pixel_difference < aliased.mean_pixel_difference
    assert aliased.sqnr_db < lanczos.sqnr_db
    report = make_report()
    *_, first, second = notes(with_(report, resizes=(aliased, lanczos)))
    assert "Android's createScaledBitmap" in first
    assert f"{lanczos.sqnr_db:.1f} dB" in second
    assert second in to_markdown(with_(report, resizes=(aliased, lanczos)))
    same = lanczos.model_copy(update={"mean_pixel_difference": 0.0})
    *_, line = notes(with_(report, resizes=(same,)))
    assert "no other resize changes them" in line


def test_files_are_loaded_again_as_they_were(model, tmp_path):
    for number in range(7):
        pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
        image = Image.fromarray(pixels).resize((150, 110), Image.Resampling.BICUBIC)
        image.save(tmp_path / f"{number}.png")
    images = load_calibration(tmp_path, model.info, samples=3)
    # smooth images: another resize moves them a little, other images would differ by tens
    assert all(0 < each.mean_pixel_difference < 5 for each in _measure_resizes(model, images))
