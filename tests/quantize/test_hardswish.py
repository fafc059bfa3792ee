"""Hard-swish of int8 codes: every code, in the reference, ONNX Runtime and XNNPACK.

The integer form is hard-swish to half a step of the output, and the runtimes' forms of it (a clamp
and a multiplication; a table made in float) are the same function.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mobiledeploy.export import onnx as to_onnx
from mobiledeploy.quantize.ranges import encode_before_hardswish, encode_hardswish
from mobiledeploy.quantize.reference import IntegerReference
from mobiledeploy.quiet import quietly
from mobiledeploy.runtimes import open_runner

quantized = torch.ops.quantized_decomposed
CODES = np.arange(-128, 128)
LARGEST = [0.3, 1.0, 2.9, 3.0, 3.1, 5.0, 6.7, 12.0, 40.0]


def quantize_dequantize(x, encoding):
    how = (encoding.scale, encoding.zero_point, -128, 127, torch.int8)
    return quantized.dequantize_per_tensor.default(
        quantized.quantize_per_tensor.default(x, *how), *how
    )


class HardSwish(torch.nn.Module):
    """One int8 hard-swish."""

    def __init__(self, source, target):
        super().__init__()
        self.source, self.target = source, target

    def forward(self, x):
        x = torch.nn.functional.hardswish(quantize_dequantize(x, self.source))
        return quantize_dequantize(x, self.target)


def one_hardswish(largest):
    """Return the encodings, an input that holds all 256 codes, and the program."""
    source = encode_before_hardswish(largest)
    target = encode_hardswish(source)
    x = ((CODES - source.zero_point) * source.scale).astype(np.float32).reshape(1, 1, 16, 16)
    with quietly():
        program = torch.export.export(HardSwish(source, target), (torch.from_numpy(x),))
    return source, target, x, program


def hardswish(x):
    """The formula of MobileNetV3, section 5.2, in float64."""
    return x * np.clip(x + 3, 0, 6) / 6


def reference_codes(program, target, x):
    real = IntegerReference(SimpleNamespace(program=program)).run({"input": x})["logits"]
    return np.rint(real.ravel() / np.float64(target.scale)).astype(int) + target.zero_point


@pytest.mark.parametrize("largest", LARGEST)
def test_every_code_is_within_half_a_step_of_hardswish(largest):
    source, target, x, program = one_hardswish(largest)
    codes = reference_codes(program, target, x)
    exact = hardswish((CODES - source.zero_point) * source.scale)
    inside = np.clip(exact, target.low, target.high)
    off = np.abs((codes - target.zero_point) * target.scale - inside)
    assert off.max() <= target.scale * (0.5 + 1e-5)
    assert np.abs(inside - exact).max() <= target.scale  # the encoding spans what there is


@pytest.mark.parametrize("largest", LARGEST)
def test_the_encodings_keep_every_code_clear_of_half_way(largest):
    """What makes a float table and an integer product round alike, also on another processor."""
    source, target, _, _ = one_hardswish(largest)
    steps = hardswish((CODES - source.zero_point) * source.scale) / target.scale
    assert np.abs(steps - np.floor(steps) - 0.5).min() > 1e-4


@pytest.mark.parametrize("largest", LARGEST)
def test_onnx_runtime_computes_the_reference(largest, tmp_path):
    _, _, x, program = one_hardswish(largest)
    path = tmp_path / "hardswish.onnx"
    path.write_bytes(to_onnx.encode(program, "int8", {}))
    expected = IntegerReference(SimpleNamespace(program=program)).run({"input": x})["logits"]
    with open_runner(path) as runner:
        assert np.count_nonzero(runner.run({"input": x})["logits"] != expected) == 0


@pytest.mark.parametrize("largest", [1.0, 6.7])
def test_xnnpack_computes_the_reference(largest, tmp_path):
    with quietly():
        from mobiledeploy.export import executorch as to_executorch

    _, _, x, program = one_hardswish(largest)
    path = tmp_path / "hardswish.pte"
    path.write_bytes(to_executorch.encode(program, {}))
    expected = IntegerReference(SimpleNamespace(program=program)).run({"input": x})["logits"]
    with open_runner(path) as runner:
        assert np.count_nonzero(runner.run({"input": x})["logits"] != expected) == 0
