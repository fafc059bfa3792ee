"""Small generated images."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import NetworkInfo, Preprocessing, WeightsProvenance


@pytest.fixture
def info() -> NetworkInfo:
    spec = ModelSpec(family="v2", width=0.25, resolution=32, num_classes=10)
    return spec.network_info(WeightsProvenance(source="random", origin="seed 0"), Preprocessing())


@pytest.fixture
def make_image() -> Callable[..., Path]:
    """Write an image of seeded noise, of any size and mode, to a path."""

    def make(path: Path, *, size=(40, 48), mode="RGB", seed=0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        width, height = size
        pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return make


@pytest.fixture
def folder(tmp_path: Path, make_image) -> Path:
    """Ten images without labels, written in another order than their names'."""
    for index in (3, 1, 2, 0, 9, 8, 4, 5, 7, 6):
        make_image(tmp_path / "images" / f"{index}.png", seed=index)
    return tmp_path / "images"
