"""Biases stay on grids that float32 and int32 can represent."""

import numpy as np
import torch

from mobiledeploy.export.onnx_passes import int32_biases
from mobiledeploy.quantization.tie_free import TOLERANCE, float32_error, margin_of
from mobiledeploy.quantization.weight_rounding import (
    largest_bias,
    round_bias,
    round_to_nearest,
    weight_scales,
)
from mobiledeploy.stages import Encoding


def test_a_bias_beyond_its_grid_becomes_the_largest_of_the_grid():
    scales, corrected = torch.tensor([2.0**-40, 0.5]), torch.tensor([-3.0, 3.0])
    assert round_bias(corrected, scales, 0.25).tolist() == [-(2.0**22) * 2.0**-42, 3.0]
    assert largest_bias(scales, 0.25).tolist() == [2.0**22 * 2.0**-42, 2.0**22 * 0.125]


def test_a_rounded_bias_determines_its_integer_in_float32():
    """Beyond 2**22 steps it would be off by more than the exporter accepts as rounding."""
    random = np.random.default_rng(0)
    scales = torch.from_numpy(random.uniform(1e-9, 2e-9, 10_000).astype(np.float32))
    corrected = torch.from_numpy(random.uniform(-7e-4, 7e-4, 10_000).astype(np.float32))
    bias, grid = round_bias(corrected, scales, 0.03), np.float32(0.03) * scales.numpy()
    steps = bias.numpy().astype(np.float64) / grid.astype(np.float64)
    assert np.abs(steps - np.rint(steps)).max() < int32_biases._OFF_GRID


def test_weights_use_127_codes_unless_the_bias_needs_a_larger_scale():
    weight = torch.tensor([[0.5, -1.27], [0.0, 1e-9]])
    output = Encoding(scale=1e-4, zero_point=0)
    scales = weight_scales(weight, torch.tensor([0.0, 1.0]), 0.5, output)
    torch.testing.assert_close(scales, torch.tensor([0.01, 2.0**-20]), rtol=TOLERANCE, atol=0)
    rounded = round_to_nearest(None, weight, scales, None)
    expected = torch.tensor([[50.0, -127.0], [0.0, 0.0]]) * scales[:, None]
    torch.testing.assert_close(rounded, expected)


def test_requantization_ratios_have_an_odd_denominator():
    """With one of them at 1 / 2, every second result would be half-way between two codes."""
    weight = torch.tensor([[1.27], [0.0635]])
    scales = weight_scales(weight, torch.zeros(2), 0.5, Encoding(scale=0.01, zero_point=0))
    ratios = scales.double().numpy() * 0.5 / 0.01
    assert np.abs(ratios / [0.5, 0.025] - 1).max() <= TOLERANCE
    assert margin_of(ratios, 128.5) > float32_error(128.5)
    assert margin_of(np.array([0.5]), 128.5) == 0
