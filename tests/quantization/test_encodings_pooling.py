"""A mean of codes is rounded to the same code by the formulas of all runtimes.

Every possible sum is tried, for scales and zero-points as in real networks and beyond.
"""

import itertools

import numpy as np
import pytest

from mobiledeploy.errors import ExportError
from mobiledeploy.quantization.encodings import encode_pooled, scale_of_mean
from mobiledeploy.stages import Encoding

SIDES = [1, 2, 3, 4, 6, 7, 8, 10, 14, 16, 28, 32]
NARROWER = [0.95, 1.0, 1.37, 2.0, 3.3, 7.1]
LARGE = [(57, 1.0), (75, 5.3), (113, 1.37)]
SOURCE = float(np.float32(0.0235))


def as_xnnpack(sums, count, source, target):
    """round(float32(sum q) f + (z' - count z f)), src/reference/unary-elementwise.cc."""
    (scale_in, z_in), (scale_out, z_out) = source, target
    factor = np.float32(1) / np.float32(count) * (scale_in / scale_out)
    moved = np.float32(z_out) - np.float32(count * z_in) * factor
    codes = np.rint(sums.astype(np.float32) * factor + moved)
    return np.clip(codes, -128, 127).astype(np.int64)


def as_onnx_runtime(sums, count, source, target):
    """round(float32(S) f) + z', mlas/lib/qlgavgpool.cpp on x86-64."""
    (scale_in, z_in), (scale_out, z_out) = source, target
    factor = scale_in / (scale_out * np.float32(count))
    means = np.rint((sums - count * z_in).astype(np.float32) * factor)
    return np.clip(means + z_out, -128, 127).astype(np.int64)


def as_onnx_runtime_on_arm64(sums, count, source, target):
    """The same in fixed point: ties away from zero (RequantizeBiasedSum)."""
    (scale_in, z_in), (scale_out, z_out) = source, target
    bits = int((scale_in / (scale_out * np.float32(count))).view(np.uint32))
    multiplier, shift = bits & 0x7FFFFF | 0x800000, 127 + 23 - (bits >> 23)
    values = (sums - count * z_in).astype(np.int64)
    products = values * multiplier - (values < 0)
    return np.clip((products + (1 << (shift - 1)) >> shift) + z_out, -128, 127)


def pooled_scale(side, narrower):
    return scale_of_mean(float(np.float32(SOURCE / narrower)), SOURCE, side * side)


@pytest.mark.parametrize(("side", "narrower"), [*itertools.product(SIDES, NARROWER), *LARGE])
def test_all_runtimes_round_every_sum_to_the_same_code(side, narrower):
    count = side * side
    scale = np.float32(pooled_scale(side, narrower))
    sums = np.arange(-128 * count, 127 * count + 1)
    for z_in, z_out in ((-128, -128), (-109, -77), (3, -20)):
        how = (sums, count, (np.float32(SOURCE), z_in), (scale, z_out))
        expected = as_onnx_runtime(*how)
        assert len(np.unique(expected)) > 30
        np.testing.assert_array_equal(as_xnnpack(*how), expected)
        np.testing.assert_array_equal(as_onnx_runtime_on_arm64(*how), expected)


@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_at_another_scale_the_formulas_disagree(side):
    """Shows that the test above can fail: the three formulas round a tie differently."""
    count = side * side
    sums = np.arange(-128 * count, 127 * count + 1)
    how = (sums, count, (np.float32(SOURCE), -109), (np.float32(SOURCE), -109))
    assert np.any(as_xnnpack(*how) != as_onnx_runtime(*how))
    assert np.any(as_onnx_runtime_on_arm64(*how) != as_onnx_runtime(*how))


@pytest.mark.parametrize("side", [*SIDES, 20, 40, 48, 56, 57, 75, 100, 112, 113])
def test_the_scale_is_at_most_half_a_percent_above_the_wanted_one(side):
    for narrower in (0.6, 1.0, 1.7, 2.9, 5.3, 40.0):
        wanted = float(np.float32(SOURCE / narrower))
        scale = scale_of_mean(wanted, SOURCE, side * side)
        assert scale == float(np.float32(scale))
        assert wanted * (1 - 1e-6) <= scale <= wanted * 1.005


def test_a_mean_of_too_many_codes_is_refused():
    with pytest.raises(ExportError, match="mean of 40000 codes") as refused:
        pooled_scale(200, 1.0)
    assert "--resolution" in refused.value.remedy


def test_the_range_of_a_mean_is_cut_to_that_of_its_input():
    """Float calibration may observe means that the input's encoding clips."""
    source = Encoding(scale=0.01, zero_point=-128)
    pooled = encode_pooled(-3.0, 40.0, source, 113 * 113)
    assert pooled.zero_point == -128
    assert pooled.scale == pytest.approx(source.scale, rel=0.02)
    assert encode_pooled(-9.0, -5.0, source, 49).scale > 0  # everything is clipped
