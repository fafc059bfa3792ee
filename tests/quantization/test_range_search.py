"""Ranges are chosen by what they do to the logits."""

import networks
import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.quantization.plan_builder import PlanBuilder
from mobiledeploy.quantization.range_search import _error, search_factors
from mobiledeploy.stages import CalibrationSet, Encoding

SIDE = 32


def factors_of(module, images):
    """Return the factor that is found for every shared encoding, in order."""
    calibration = CalibrationSet(images=images, source="", sha256="")
    builder = PlanBuilder.of(networks.model_of(module), calibration)
    return list(search_factors(builder, images).values())


class OneLargeChannel(nn.Module):
    """Channel 0 is a hundred times larger than channel 1; `read` weighs them in the logits."""

    def __init__(self, read):
        super().__init__()
        self.first = nn.Conv2d(3, 2, 1)
        self.last = nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[100.0, 0, 0], [0, 1, 0]]).view(2, 3, 1, 1))
            self.first.bias.zero_()
            self.last.weight.copy_(torch.tensor([read, read]).view(2, 2, 1, 1))
            self.last.bias.zero_()

    def forward(self, x):
        return self.last(self.first(x)).flatten(1)


@pytest.mark.parametrize(
    ("read", "expected"), [([0.0, 1.0], 0.2), ([1.0, 0.0], 1.0)], ids=["small", "large"]
)
def test_a_channel_is_clipped_only_if_the_logits_do_not_depend_on_it(read, expected):
    images = np.random.default_rng(0).uniform(-1, 1, (4, 3, SIDE, SIDE)).astype(np.float32)
    _, first, last = factors_of(OneLargeChannel(read), images)
    assert first == expected
    assert last == 1.0  # the logits are never clipped


def test_a_pad_does_not_count_a_second_time():
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 3)
    images = networks.pixels(SIDE, count=2)
    bare = factors_of(nn.Sequential(first, nn.ReLU(), last, nn.Flatten()), images)
    padded = factors_of(
        nn.Sequential(first, nn.ReLU(), nn.ZeroPad2d(0), last, nn.Flatten()), images
    )
    assert bare == padded


def test_an_addition_is_charged_for_clipping_only():
    encoding = Encoding(scale=0.5, zero_point=0)
    value = torch.tensor([0.2, 100.0])
    assert _error(value, encoding, only_clips=True).tolist() == pytest.approx([0, -36.5])
    assert _error(value, encoding, only_clips=False).tolist() == pytest.approx([-0.2, -36.5])
