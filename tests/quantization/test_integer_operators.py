"""The integer operators against a second implementation: loops over int64, by the definition."""

import numpy as np
import pytest
import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.quantization import integer_operators as reference
from mobiledeploy.quantization.integer_operators import Scaled

SX, SW, SY = np.float32(0.0235), np.float32(0.0017), np.float32(0.041)


def requantized(accumulators, factor, zero_point):
    """q = saturate(round_half_even(float32(n) * factor) + z), as int64; factor is float32."""
    product = accumulators.astype(np.float32) * np.asarray(factor, np.float32)
    assert product.dtype == np.float32
    return np.clip(np.rint(product).astype(np.int64) + zero_point, -128, 127)


def int8_codes(random, *shape):
    return random.integers(-128, 128, shape)


def scaled(codes, zero_point, scale):
    """Return int8 codes as the reference represents them."""
    return Scaled(
        torch.from_numpy((codes - zero_point).astype(np.float32)), torch.tensor(np.float32(scale))
    )


def codes_of(value, scale, zero_point):
    """Quantize with the reference; return int8 codes as int64."""
    values = reference.quantize(value, float(scale), zero_point).values
    return values.numpy().astype(np.int64) + zero_point


def convolved(codes, zero_point, weight, bias, stride, padding, dilation, groups):
    """Accumulate one product at a time; the border is filled with the zero-point."""
    n, _, height, width = codes.shape
    out, per_group, kh, kw = weight.shape
    border = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    x = np.pad(codes, border, constant_values=zero_point).astype(np.int64)
    rows = (height + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
    columns = (width + 2 * padding - dilation * (kw - 1) - 1) // stride + 1
    sums = np.zeros((n, out, rows, columns), np.int64)
    for image, o, i, j in np.ndindex(sums.shape):
        total = int(bias[o])
        first = o // (out // groups) * per_group
        for c, a, b in np.ndindex(per_group, kh, kw):
            code = x[image, first + c, i * stride + a * dilation, j * stride + b * dilation]
            total += (int(code) - zero_point) * int(weight[o, c, a, b])
        sums[image, o, i, j] = total
    return sums


@pytest.mark.parametrize(
    ("channels", "out", "kernel", "stride", "padding", "dilation", "groups"),
    [
        (3, 4, 3, 2, 1, 1, 1),
        (8, 8, 3, 1, 1, 1, 8),
        (8, 8, 5, 2, 2, 1, 8),
        (4, 8, 3, 1, 0, 1, 4),
        (6, 4, 3, 1, 2, 2, 2),
        (16, 5, 1, 1, 0, 1, 1),
    ],
    ids=["dense", "depthwise", "depthwise-5x5", "multiplier-2", "dilated-groups", "pointwise"],
)
@pytest.mark.parametrize("zero_point", [-128, -3, 127])
def test_convolution(channels, out, kernel, stride, padding, dilation, groups, zero_point):
    random = np.random.default_rng(channels * kernel)
    codes = int8_codes(random, 2, channels, 6, 5)
    weight = random.integers(-127, 128, (out, channels // groups, kernel, kernel))
    scales = (SW * random.uniform(0.5, 2, out)).astype(np.float32)
    grid = SX * scales
    bias = random.integers(-(2**21), 2**21, out) // 50
    float_bias = (bias * grid.astype(np.float64)).astype(np.float32)
    sums = convolved(codes, zero_point, weight, bias, stride, padding, dilation, groups)
    expected = requantized(sums, (grid / SY).astype(np.float32)[:, None, None], -7)
    result = reference.convolution(
        scaled(codes, zero_point, SX),
        Scaled(torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(scales)),
        torch.from_numpy(float_bias),
        stride,
        padding,
        dilation,
        groups,
    )
    np.testing.assert_array_equal(result.values.numpy(), sums)
    found = codes_of(result, SY, -7)
    np.testing.assert_array_equal(found, expected)
    assert len(np.unique(found)) > 20


@pytest.mark.parametrize(("channels", "kernel"), [(2048, 1), (1024, 3)])
def test_sums_beyond_the_precision_of_float32_are_exact(channels, kernel):
    codes = np.full((1, channels, kernel, kernel), 127)
    weight = np.full((1, channels, kernel, kernel), 127)
    weight[0, 0, 0, 0] = 126
    result = reference.convolution(
        scaled(codes, -128, SX),
        Scaled(torch.from_numpy(weight.astype(np.float32)), torch.tensor([SW])),
        torch.zeros(1),
    )
    assert int(result.values) == channels * kernel**2 * 255 * 127 - 255


def test_linear():
    random = np.random.default_rng(0)
    codes, weight = int8_codes(random, 3, 700), random.integers(-127, 128, (10, 700))
    scales = (SW * random.uniform(0.5, 2, 10)).astype(np.float32)
    grid = SX * scales
    bias = random.integers(-100_000, 100_000, 10)
    sums = (
        np.array(
            [
                [
                    sum((int(x) + 5) * int(w) for x, w in zip(row, column, strict=True))
                    for column in weight
                ]
                for row in codes
            ]
        )
        + bias
    )
    result = reference.linear(
        scaled(codes, -5, SX),
        Scaled(torch.from_numpy(weight.astype(np.float32)), torch.from_numpy(scales)),
        torch.from_numpy((bias * grid.astype(np.float64)).astype(np.float32)),
    )
    expected = requantized(sums, (grid / SY).astype(np.float32), 3)
    np.testing.assert_array_equal(codes_of(result, SY, 3), expected)
    assert len(np.unique(expected)) > 10


def test_addition_saturates_and_does_not_round():
    codes = np.arange(-128, 128)
    a, b = (grid.ravel() for grid in np.meshgrid(codes, codes))
    result = reference.add(scaled(a, 4, SX), scaled(b, 4, SX))
    expected = np.clip((a - 4) + (b - 4) + 4, -128, 127)
    np.testing.assert_array_equal(codes_of(result, SX, 4), expected)


def test_addition_of_different_scales_is_refused():
    with pytest.raises(ExportError, match="different scales"):
        reference.add(scaled(np.ones(1), 0, SX), scaled(np.ones(1), 0, SX * 2))


def test_multiplication():
    codes = np.arange(-128, 128)
    a, b = (grid.ravel() for grid in np.meshgrid(codes, codes))
    result = reference.multiply(scaled(a, -100, SX), scaled(b, -128, np.float32(1 / 255)))
    factor = np.float32(SX * np.float32(1 / 255)) / SY
    expected = requantized((a + 100) * (b + 128), factor, -60)
    np.testing.assert_array_equal(codes_of(result, SY, -60), expected)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 7, 8])
def test_pooling_rounds_the_mean_once_with_ties_to_even(side):
    random = np.random.default_rng(side)
    codes = int8_codes(random, 3, 40, side, side)
    result = reference.pool(scaled(codes, -128, SX), 1)
    sums = (codes + 128).sum((2, 3), keepdims=True)
    expected = requantized(sums, np.float32(SX / (side * side)) / SX, -128)
    np.testing.assert_array_equal(codes_of(result, SX, -128), expected)
    if side == 2:  # quarters are exact in float, so integers alone give the same codes
        whole, rest = sums // 4, sums % 4
        up = (rest == 3) | ((rest == 2) & (whole % 2 == 1))
        np.testing.assert_array_equal(expected, np.minimum(whole + up - 128, 127))


@pytest.mark.parametrize("steps", [1, 40, 77, 128, 254])
def test_hardswish_in_integers(steps):
    scale, codes = np.float32(3 / steps), np.arange(-128, 128)
    n = codes - (steps - 128)  # real = n * scale
    gate = np.clip(n + steps, 0, 2 * steps)  # hard-sigmoid * 6, in the same unit
    result = reference.hardswish(scaled(codes, steps - 128, scale))
    np.testing.assert_array_equal(result.values.numpy(), n * gate)
    assert float(result.scale) == scale * np.float32(scale / np.float32(6))


def test_a_clamp_is_in_units_of_the_scale():
    result = reference.hardtanh(scaled(np.arange(-128, 128), 0, 0.0625), 0.0, 6.0)
    np.testing.assert_array_equal(result.values.numpy(), np.clip(np.arange(-128, 128), 0, 96))


def test_flattening_keeps_the_batch():
    values = np.arange(2 * 3 * 4).reshape(2, 3, 2, 2)
    result = reference.copying(torch.ops.aten.flatten.using_ints)(scaled(values, 0, SX), 1)
    np.testing.assert_array_equal(result.values.numpy(), values.reshape(2, 12))


def test_padding_adds_the_zero_point():
    codes = int8_codes(np.random.default_rng(0), 2, 3, 4, 4)
    values = torch.from_numpy((codes + 9).astype(np.float32))
    result = reference.pad(Scaled(values, torch.tensor(SX)), [0, 1, 2, 3])
    border = ((0, 0), (0, 0), (2, 3), (0, 1))
    expected = np.pad(codes, border, constant_values=-9)
    np.testing.assert_array_equal(result.values.numpy() - 9, expected)
    assert float(result.scale) == float(SX)


def test_requantization_rounds_half_to_even_and_saturates():
    n = torch.tensor([-1000.0, -3, -1, 1, 3, 5, 1000])
    found = reference.quantize(Scaled(n, torch.tensor(0.5)), 1.0, 10).values
    assert (found + 10).tolist() == [-128, 8, 10, 10, 12, 12, 127]


def test_real_numbers_are_divided_by_the_scale_in_float32():
    x = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    found = reference.quantize(torch.from_numpy(x), float(SX), -9).values.numpy() - 9
    np.testing.assert_array_equal(found, np.clip(np.rint(x / SX) - 9, -128, 127))
