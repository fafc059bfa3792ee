"""What codes stand for, and the gradient that passes through the rounding."""

import pytest
import torch

from mobiledeploy.quantize.codes import on_codes
from mobiledeploy.types import Encoding

SCALE = 0.0371


@pytest.mark.parametrize("zero_point", [-128, -7, 0, 127])
def test_it_is_what_torch_calls_fake_quantization(zero_point):
    random = torch.Generator().manual_seed(0)
    steps = torch.randint(-300, 300, (10_000,), generator=random)
    x = SCALE * (steps + 0.98 * (torch.rand(10_000, generator=random) - 0.5))  # clear of half-way
    expected_of, x_of = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = torch.fake_quantize_per_tensor_affine(expected_of, SCALE, zero_point, -128, 127)
    found = on_codes(x_of, Encoding(scale=SCALE, zero_point=zero_point))
    torch.testing.assert_close(found, expected)
    weights = torch.arange(10_000.0)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x_of.grad, expected_of.grad)
    assert 0 < int((x_of.grad == 0).sum()) < 9_999  # some were clipped


def test_the_tensor_stays_as_it_is():
    x = torch.tensor([0.02, 1.0, 100.0])
    on_codes(x, Encoding(scale=SCALE, zero_point=0))
    assert x.tolist() == torch.tensor([0.02, 1.0, 100.0]).tolist()
