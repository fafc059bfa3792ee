"""Fake quantization: the values of codes, straight-through gradients, and whole networks."""

import networks
import numpy as np
import pytest
import torch
from networks import FAMILIES

from mobiledeploy.metrics import sqnr_db
from mobiledeploy.quantization.fake_quantize import FakeQuantizedNetwork, fake_quantize
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.make_plan import make_plan
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.quantization.round_layers import round_layers
from mobiledeploy.stages import Encoding, QuantRecipe

SCALE = 0.0371
IMAGES = networks.pixels(32)


def numbers_on(scale):
    """Return numbers that are not near a rounding tie."""
    random = torch.Generator().manual_seed(0)
    steps = torch.randint(-300, 300, (4, 5, 20, 25), generator=random)
    return scale * (steps + 0.98 * (torch.rand(steps.shape, generator=random) - 0.5))


@pytest.mark.parametrize("zero_point", [-128, -7, 0, 127])
def test_values_and_gradients_equal_torch(zero_point):
    x = numbers_on(SCALE)
    expected_input, found_input = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = torch.fake_quantize_per_tensor_affine(expected_input, SCALE, zero_point, -128, 127)
    found = fake_quantize(found_input, Encoding(scale=SCALE, zero_point=zero_point))
    torch.testing.assert_close(found, expected)
    weights = torch.arange(10_000.0).view_as(x)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found_input.grad, expected_input.grad)
    assert 0 < int((found_input.grad == 0).sum()) < 9_999  # some values were clipped


def test_the_input_is_not_modified():
    x = torch.tensor([[0.02, 1.0, 100.0]])
    fake_quantize(x, Encoding(scale=SCALE, zero_point=0))
    assert torch.equal(x, torch.tensor([[0.02, 1.0, 100.0]]))


@pytest.mark.parametrize("width", [0.9, [0.7, 0.8, 0.9, 1.0, 1.1]], ids=["one", "per-channel"])
def test_the_gradient_of_a_width_equals_autograd(width):
    widths = torch.tensor(width)
    per_channel = widths.view(-1, 1, 1)
    x, encoding = numbers_on(1.0) * SCALE * per_channel, Encoding(scale=SCALE, zero_point=-7)
    found_width, expected_width = (widths.clone().requires_grad_() for _ in range(2))
    step = SCALE * expected_width.view(-1, 1, 1)
    steps = x / step
    codes = (steps + (steps.round() - steps).detach()).clamp(-121, 134)
    weights = torch.linspace(-1, 1, x.numel()).view_as(x).to(memory_format=torch.channels_last)
    (codes * step * weights).sum().backward()
    found = fake_quantize(x, encoding, found_width)
    (found * weights).sum().backward()
    torch.testing.assert_close(found, (codes * step).detach())
    torch.testing.assert_close(found_width.grad, expected_width.grad, atol=1e-3, rtol=1e-4)
    assert found_width.grad.shape == widths.shape
    assert found_width.grad.abs().min() > 1


@pytest.mark.ci
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fake_quantized_network_is_close_to_the_integer_network(family):
    """Shows an activation that is lost on the way to integers, whatever the weights are."""
    model, images = networks.equalized(family), networks.calibration(32)
    recipe = QuantRecipe(equalization="cross-layer", range_rule="minmax", rounding="nearest")
    plan = make_plan(model, images, recipe)
    rounded = round_layers(plan, recipe, images.images)
    with torch.no_grad():
        expected = FakeQuantizedNetwork(plan, rounded).run(torch.from_numpy(IMAGES)).numpy()
    found = IntegerReference(quantize(model, images, recipe)).run({"input": IMAGES})["logits"]
    assert sqnr_db(expected, found) > 28  # codes near a rounding tie may differ


def test_a_network_with_every_operator_in_float_is_the_float_network():
    plan = make_plan(
        networks.equalized("v2", short=True),
        networks.calibration(32),
        QuantRecipe(range_rule="minmax"),
    )
    plan = plan.with_float_layers([op.layer for op in plan.layers])
    images = torch.from_numpy(IMAGES)
    with torch.no_grad():
        expected = plan.traced(images).numpy()
        found = FakeQuantizedNetwork(plan, {}).run(images).numpy()
    np.testing.assert_array_equal(found, expected)
