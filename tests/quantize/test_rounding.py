"""Cancelling rounding looks at what the layer really sees."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from mobiledeploy.quantize.rounding import _columns


@pytest.mark.parametrize(
    ("shape", "stride", "padding", "dilation", "groups"),
    [
        ((4, 6, 1, 1), 1, 0, 1, 1),
        ((4, 6, 3, 3), 2, 1, 1, 1),
        ((6, 1, 5, 5), 1, 2, 1, 6),
        ((6, 1, 5, 5), 1, 4, 2, 6),
        ((12, 1, 3, 3), 2, 0, 1, 6),
        ((4, 3, 3, 3), 1, 2, 2, 2),
    ],
    ids=["pointwise", "strided", "depthwise", "dilated", "two-filters", "dilated-groups"],
)
def test_the_columns_times_the_weights_are_the_convolution(
    shape, stride, padding, dilation, groups
):
    generator = torch.Generator().manual_seed(0)
    weight, x = (
        torch.randn(shape, generator=generator),
        torch.randn(2, 6, 9, 9, generator=generator),
    )
    settings = ([stride] * 2, [padding] * 2, [dilation] * 2, groups)
    expected = F.conv2d(x, weight, None, *settings)  # (N, out, H, W)
    columns = _columns(SimpleNamespace(args=(None, None, None, *settings)), weight, x, groups)
    rows = weight.double().view(groups, shape[0] // groups, -1)
    products = (rows @ columns.transpose(1, 2)).reshape(shape[0], 2, *expected.shape[2:])
    torch.testing.assert_close(products.transpose(0, 1).float(), expected)
