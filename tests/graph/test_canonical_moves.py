"""Operators that copy values: each becomes one of a few forms, and the function stays the same."""

import pytest
import torch
import torch.nn.functional as F
from flat_graphs import flat
from torch import nn

aten = torch.ops.aten
SHUFFLE = [aten.reshape.default, aten.permute.default, aten.reshape.default]
NEAREST = aten.upsample_nearest2d.vec


def joined(parts):
    return torch.cat(tuple(parts), 1)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: joined(x.chunk(2, dim=1)),
        lambda x: joined(x.split(4, dim=-3)),
        lambda x: joined(torch.split(x, [3, 5], 1)),
        lambda x: joined([x[:, :3], x[:, 3:]]),
    ],
)
def test_every_form_of_a_split_becomes_slices(function):
    assert flat(function) == [aten.slice.Tensor, aten.slice.Tensor, aten.cat.default]


def test_a_part_that_nobody_reads_is_removed():
    assert flat(lambda x: x.chunk(4, 1)[2]) == [aten.slice.Tensor]


def test_a_slice_of_everything_is_removed():
    assert flat(lambda x: torch.relu(x[:, :, 0:, :32])) == [aten.relu.default]


def test_a_selected_channel_is_a_slice():
    assert flat(lambda x: x[:, -2]) == [aten.slice.Tensor, aten.reshape.default]


@pytest.mark.parametrize("function", [lambda x: x[..., ::2], lambda x: x[:, :, 1:30:3]])
def test_a_strided_slice_ends_in_a_convolution(function):
    assert flat(function)[-1] is aten.conv2d.default


@pytest.mark.parametrize(
    "function",
    [
        nn.PixelShuffle(2),
        nn.PixelUnshuffle(4),
        nn.ChannelShuffle(4),
        lambda x: x.view(x.size(0), 2, 4, *x.shape[2:]).transpose(1, 2).contiguous().view(x.shape),
        lambda x: x.unflatten(1, (4, 2)).movedim(1, 2).reshape(x.shape),
    ],
)
def test_every_shuffle_becomes_reshapes_around_a_permutation(function):
    assert flat(function) == SHUFFLE


@pytest.mark.parametrize(
    "function",
    [
        nn.Upsample(scale_factor=2),
        lambda x: F.interpolate(x, size=(64, 96)),
        lambda x: F.interpolate(x, scale_factor=3, mode="nearest-exact"),
    ],
)
def test_nearest_upsampling_has_factors(function):
    assert flat(function) == [NEAREST]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.interpolate(x.mean((2, 3), True), size=(8, 6), mode="bilinear"),
        lambda x: F.interpolate(x.mean((2, 3), True), (8, 6), mode="bilinear", align_corners=True),
        lambda x: torch.tanh(x.mean((2, 3), True).expand(-1, -1, 8, 6)),
    ],
)
def test_a_pixel_that_becomes_an_image_is_repeated(function):
    assert NEAREST in flat(function)


@pytest.mark.parametrize("factor", [2, (3, 1), (1, 4), 8])
def test_bilinear_upsampling_becomes_a_convolution_and_a_shuffle(factor):
    found = flat(nn.Upsample(scale_factor=factor, mode="bilinear"))
    assert found[-4:] == [aten.conv2d.default, *SHUFFLE]


@pytest.mark.parametrize(
    "function",
    [
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        lambda x: F.interpolate(x, size=(48, 48), mode="bilinear"),
    ],
)
def test_other_upsampling_stays_as_it_is(function):
    assert flat(function)[0] in {
        aten.upsample_bilinear2d.vec,
        aten.upsample_bilinear2d.default,
    }
