"""What codes stand for, and the gradient that passes through the rounding."""

import pytest
import torch

from mobiledeploy.network import Encoding
from mobiledeploy.quantization.fake_quantize import fake_quantize

SCALE = 0.0371


def some_of(scale):
    """Return numbers that are clear of half-way between two codes."""
    random = torch.Generator().manual_seed(0)
    steps = torch.randint(-300, 300, (4, 5, 20, 25), generator=random)
    return scale * (steps + 0.98 * (torch.rand(steps.shape, generator=random) - 0.5))


@pytest.mark.parametrize("zero_point", [-128, -7, 0, 127])
def test_it_is_what_torch_calls_fake_quantization(zero_point):
    x = some_of(SCALE)
    expected_of, x_of = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = torch.fake_quantize_per_tensor_affine(expected_of, SCALE, zero_point, -128, 127)
    found = fake_quantize(x_of, Encoding(scale=SCALE, zero_point=zero_point))
    torch.testing.assert_close(found, expected)
    weights = torch.arange(10_000.0).view_as(x)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(x_of.grad, expected_of.grad)
    assert 0 < int((x_of.grad == 0).sum()) < 9_999  # some were clipped


def test_the_tensor_stays_as_it_is():
    x = torch.tensor([[0.02, 1.0, 100.0]])
    fake_quantize(x, Encoding(scale=SCALE, zero_point=0))
    assert torch.equal(x, torch.tensor([[0.02, 1.0, 100.0]]))


@pytest.mark.parametrize("width", [0.9, [0.7, 0.8, 0.9, 1.0, 1.1]], ids=["one", "per-channel"])
def test_a_width_is_learned_as_autograd_would_learn_it(width):
    numbers = torch.tensor(width)
    per_channel = numbers.view(-1, 1, 1)
    x, encoding = some_of(1.0) * SCALE * per_channel, Encoding(scale=SCALE, zero_point=-7)
    width_of, expected_of = (numbers.clone().requires_grad_() for _ in range(2))
    step = SCALE * expected_of.view(-1, 1, 1)
    steps = x / step
    codes = (steps + (steps.round() - steps).detach()).clamp(-121, 134)
    weights = torch.linspace(-1, 1, x.numel()).view_as(x).to(memory_format=torch.channels_last)
    (codes * step * weights).sum().backward()
    found = fake_quantize(x, encoding, width_of)
    (found * weights).sum().backward()
    torch.testing.assert_close(found, (codes * step).detach())
    torch.testing.assert_close(width_of.grad, expected_of.grad, atol=1e-3, rtol=1e-4)
    assert width_of.grad.shape == numbers.shape
    assert width_of.grad.abs().min() > 1
