"""GPTQ rounds weights so that their errors cancel on the layer's inputs."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from mobiledeploy.quantization import gptq as gptq_module
from mobiledeploy.quantization.gptq import _columns, _moments, gptq
from mobiledeploy.quantization.weight_rounding import round_to_nearest


@pytest.mark.parametrize(
    ("shape", "stride", "padding", "dilation", "groups"),
    [
        ((4, 6, 1, 1), 1, 0, 1, 1),
        ((4, 6, 3, 3), 2, 1, 1, 1),
        ((6, 1, 5, 5), 1, 2, 1, 6),
        ((6, 1, 5, 5), 1, 4, 2, 6),
        ((12, 1, 3, 3), 2, 0, 1, 6),
        ((4, 3, 3, 3), 1, 2, 2, 2),
        ((4, 6, 3, 1), (1, 2), (1, 0), (2, 1), 1),
        ((4, 6, 1, 1), (2, 1), 0, 1, 1),
    ],
    ids=[
        *("pointwise", "strided", "depthwise", "dilated", "two-filters", "dilated-groups"),
        *("rectangle", "strided-rows"),
    ],
)
def test_the_columns_times_the_weights_are_the_convolution(
    shape, stride, padding, dilation, groups
):
    generator = torch.Generator().manual_seed(0)
    weight, x = (
        torch.randn(shape, generator=generator),
        torch.randn(2, 6, 9, 9, generator=generator),
    )
    pairs = ([each] * 2 if isinstance(each, int) else each for each in (stride, padding, dilation))
    settings = (*map(list, pairs), groups)
    expected = F.conv2d(x, weight, None, *settings)  # (N, out, H, W)
    columns = _columns(SimpleNamespace(args=(None, None, None, *settings)), weight, x, 9)
    rows = weight.view(groups, shape[0] // groups, -1)
    products = (rows @ columns.transpose(1, 2)).reshape(shape[0], 2, *expected.shape[2:])
    torch.testing.assert_close(products.transpose(0, 1), expected)


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize(("positions", "side"), [(10_000, 12), (5 * 16, 4), (5 * 20, 4), (1, 1)])
def test_moments_take_few_positions_of_many_images(kernel, positions, side, monkeypatch):
    monkeypatch.setattr(gptq_module, "_POSITIONS", positions)
    monkeypatch.setattr(gptq_module, "parallel_map", map)
    seen = []
    columns = gptq_module._columns
    monkeypatch.setattr(
        gptq_module, "_columns", lambda *args: seen.append(columns(*args)) or seen[-1]
    )
    node = SimpleNamespace(args=(None, None, None, [1, 1], [kernel // 2] * 2, [1, 1], 1))
    x = torch.randn(5, 6, 12, 12, generator=torch.Generator().manual_seed(0))
    _moments(node, torch.zeros(4, 6, kernel, kernel), x.split(2))
    _, *batches = seen  # the first batch is seen twice
    assert [batch.shape[1] for batch in batches] == [count * side**2 for count in (2, 2, 1)]
    middle = batches[0].view(2, side, side, 6, kernel, kernel)[..., kernel // 2, kernel // 2]
    every = 12 // side
    assert torch.equal(middle, x[:2, :, ::every, ::every].movedim(1, -1))


def test_depthwise_layers_take_fewer_positions(monkeypatch):
    monkeypatch.setattr(gptq_module, "_DEPTHWISE_POSITIONS", 5 * 16)
    monkeypatch.setattr(gptq_module, "parallel_map", map)
    x = torch.randn(5, 6, 12, 12, generator=torch.Generator().manual_seed(0))
    node = SimpleNamespace(args=(None, None, None, [1, 1], [1, 1], [1, 1], 6))
    moments = _moments(node, torch.zeros(6, 1, 3, 3), x.split(2))
    patches = F.unfold(x, 3, padding=1, stride=3).view(5, 6, 9, 16)
    centred = patches - patches.mean((0, 3), keepdim=True)
    expected = torch.einsum("ncip,ncjp->cij", centred, centred) / (5 * 16)
    torch.testing.assert_close(moments.float(), expected)


def correlated(count=64, channels=12):
    """Return inputs (N, C) of a linear layer whose channels are strongly correlated."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(count, 1, generator=generator)
    return common + 0.1 * torch.randn(count, channels, generator=generator)


def error_of(rounding):
    """Return the mean squared error of a layer's centred outputs after rounding its weights."""
    generator = torch.Generator().manual_seed(1)
    weight, x = torch.randn(5, 12, generator=generator), correlated()
    scales = torch.full((5,), 0.25)
    node = SimpleNamespace(args=())
    rounded = rounding(node, weight, scales, x.split(24))
    steps = rounded / scales.view(-1, 1)
    torch.testing.assert_close(steps, steps.round())  # on the grid
    error = x @ (weight - rounded).T
    return float((error - error.mean(0)).square().mean())


def test_errors_cancel_if_channels_are_correlated():
    assert error_of(gptq) < 0.2 * error_of(round_to_nearest)


def test_the_size_of_the_blocks_does_not_change_the_result(monkeypatch):
    whole = error_of(gptq)
    monkeypatch.setattr(gptq_module, "_BLOCK", 5)
    assert error_of(gptq) == pytest.approx(whole, rel=1e-6)


def test_moments_are_the_covariance_over_all_batches():
    x = correlated() + 3
    node, weight = SimpleNamespace(args=()), torch.zeros(5, 12)
    (found,) = _moments(node, weight, x.split(24))
    expected = torch.cov(x.double().T, correction=0)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
