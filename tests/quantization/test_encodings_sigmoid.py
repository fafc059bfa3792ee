"""Sigmoid of int8 codes: every code, in the reference and both runtimes."""

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.export import onnx as to_onnx
from mobiledeploy.export import tflite as to_tflite
from mobiledeploy.quantization.encodings import (
    SIGMOID,
    encode,
    encode_before_sigmoid,
    sigmoid_steps,
    tie_distance,
)
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import Encoding
from mobiledeploy.utils.quiet import quietly

quantized = torch.ops.quantized_decomposed
CODES = np.arange(-128, 128)
RANGES = [(-8, 8), (-3.7, 5.1), (-0.4, 0.1), (0, 2.2), (-8, 0), (-20, 31)]


class Sigmoid(torch.nn.Module):
    """One int8 sigmoid."""

    def __init__(self, source):
        super().__init__()
        self.how = [(e.scale, e.zero_point, -128, 127, torch.int8) for e in (source, SIGMOID)]

    def forward(self, x):
        return self.rounded(torch.sigmoid(self.rounded(x, 0)), 1)

    def rounded(self, x, place):
        codes = quantized.quantize_per_tensor.default(x, *self.how[place])
        return quantized.dequantize_per_tensor.default(codes, *self.how[place])


def real(source):
    return ((CODES - source.zero_point) * source.scale).astype(np.float32).reshape(1, 1, 16, 16)


def one_sigmoid(source):
    with quietly():
        return torch.export.export(Sigmoid(source), (torch.from_numpy(real(source)),))


def reference(program, x):
    return IntegerReference(networks.with_program(program)).run({"input": x})["logits"]


def run(path, x):
    with open_runner(path) as runner:
        return runner.run({"input": x})["logits"].reshape(x.shape)  # LiteRT's channels are last


def written(format_, program, path):
    if format_ == "onnx":
        path.write_bytes(to_onnx.encode_model(networks.with_program(program)))
    elif format_ == "tflite":
        path.write_bytes(to_tflite.encode_program(program, {}))
    else:
        with quietly():
            from mobiledeploy.export import executorch as to_executorch
        path.write_bytes(to_executorch.encode(program, {}))
    return path


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_every_code_is_the_nearest_to_the_sigmoid(low, high):
    source = encode_before_sigmoid(low, high)
    x = real(source)
    found = reference(one_sigmoid(source), x)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert np.abs(found - np.minimum(exact, 255 / 256)).max() <= 0.5 / 256 + 1e-7
    assert set(np.unique(found * 256) % 1) == {0}


def test_no_entry_is_near_a_tie_and_the_range_grows_by_2_percent_at_most():
    random = np.random.default_rng(0)
    for low, high in zip(-random.uniform(0, 8, 300), random.uniform(0.01, 8, 300), strict=True):
        chosen = encode_before_sigmoid(low, high)
        assert tie_distance(sigmoid_steps(chosen)) > 1e-3, (low, high)
        assert 1 <= chosen.scale / encode(low, high).scale < 1.02


@pytest.mark.parametrize("format_", ["onnx", "pte", "tflite"])
@pytest.mark.parametrize(("low", "high"), RANGES)
def test_runtimes_compute_the_reference_for_every_code(format_, low, high, tmp_path):
    source = encode_before_sigmoid(low, high)
    program = one_sigmoid(source)
    path = written(format_, program, tmp_path / f"sigmoid.{format_}")
    found, expected = run(path, real(source)), reference(program, real(source))
    assert len(np.unique(expected)) > 5
    assert np.count_nonzero(found != expected) == 0


def test_a_tie_would_be_seen():
    """Shows that the margin can fail: one step of ln(128.5 / 127.5) has the sigmoid 128.5 / 256."""
    source = Encoding(scale=float(np.log(128.5 / 127.5)), zero_point=0)
    assert tie_distance(sigmoid_steps(source)) < 1e-4
