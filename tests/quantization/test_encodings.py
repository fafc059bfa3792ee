"""The encoding of one tensor: it spans its range and zero, and keeps away from rounding ties."""

import numpy as np
import pytest

from mobiledeploy.network import Preprocessing
from mobiledeploy.quantization.encodings import encode, encode_around, encode_input

PREPROCESSINGS = [
    Preprocessing(),
    Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
    Preprocessing(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
    Preprocessing(mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
]


def distance_from_ties(steps):
    """Return the least distance of numbers from the middle between two integers."""
    return np.abs(steps - np.floor(steps) - 0.5).min()


@pytest.mark.parametrize(
    ("low", "high"), [(0.5, 2), (-3, -1), (-1, 1), (0, 6), (-1e-9, 0), (0, 0), (-7, 0.01)]
)
def test_an_encoding_spans_its_range_and_zero(low, high):
    encoding = encode(low, high)
    step = encoding.scale
    assert encoding.low <= min(low, 0) + step / 2 + 1e-12
    assert encoding.high >= max(high, 0) - step / 2 - 1e-6
    assert -128 <= encoding.zero_point <= 127


@pytest.mark.parametrize("preprocessing", PREPROCESSINGS)
def test_no_pixel_value_is_near_a_tie_or_clipped(preprocessing):
    encoding = encode_input(preprocessing)
    pixels = np.arange(256, dtype=np.float32)[:, None] / np.float32(255)
    values = (pixels - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)
    assert values.size == 768
    steps = values.astype(np.float64) / encoding.scale
    assert distance_from_ties(steps) > 5e-4
    codes = np.rint(steps) + encoding.zero_point
    assert codes.min() >= -128
    assert codes.max() <= 127
    assert np.ptp(codes) >= 249  # the widening costs no more than a few codes
    scale = np.float32(encoding.scale)
    divided, multiplied = np.rint(values / scale), np.rint(values * (np.float32(1) / scale))
    np.testing.assert_array_equal(divided, multiplied)


def test_a_clamp_inside_a_range_is_not_near_a_tie():
    ties = [6 * 255 / (code + 0.5) - 2 for code in range(150, 180)]
    for high in ties:
        assert distance_from_ties(6 / encode_around(-2.0, high, [0.0, 6.0]).scale) > 1e-3
    assert encode_around(0.0, 6.0, [0.0, 6.0]) == encode_around(0.0, 6.0, [])
