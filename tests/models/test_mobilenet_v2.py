"""The architecture of MobileNet V2."""

import pytest
import torch
from torch import nn

from mobiledeploy.errors import UsageError
from mobiledeploy.models.blocks import make_divisible
from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.mobilenet_v2 import InvertedResidual
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride", "expected"),
    [(8, 8, 1, True), (8, 8, 2, False), (8, 16, 1, False)],
)
def test_a_block_adds_its_input_only_at_stride_1_with_equal_channels(
    in_channels, out_channels, stride, expected
):
    block = InvertedResidual(in_channels, out_channels, stride=stride, expansion=2).eval()
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.zeros_(
                norm.weight
            )  # the block's own path gives zero: what is left is the input
    x = torch.ones(1, in_channels, 8, 8)
    assert bool(block(x).any()) is expected


@pytest.mark.parametrize("stride", [0, 3])
def test_strides_other_than_1_and_2_are_refused(stride):
    with pytest.raises(UsageError, match=f"stride of a block is {stride}; expected 1 or 2"):
        InvertedResidual(8, 8, stride=stride, expansion=1)


def test_an_expansion_factor_of_1_has_no_expansion_layer():
    kernels = [
        m.kernel_size[0]
        for m in InvertedResidual(8, 16, stride=1, expansion=1).modules()
        if isinstance(m, nn.Conv2d)
    ]
    assert kernels == [3, 1]


def test_the_bottleneck_is_linear():
    block = InvertedResidual(8, 8, stride=1, expansion=6)
    assert isinstance(block.conv[-1], nn.BatchNorm2d)


def test_channels_are_multiples_of_round_nearest():
    options = ArchitectureOptions(round_nearest=4)
    module = create(ModelSpec(family="v2", width=0.35, architecture=options))
    channels = {m.out_channels for m in module.modules() if isinstance(m, nn.Conv2d)}
    assert all(count % 4 == 0 for count in channels)
    assert any(count % 8 for count in channels)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(11.2, 16), (8.4, 8), (3, 8), (44.8, 48), (33.6, 32), (19.2, 24), (180, 184)],
)
def test_channel_counts_round_as_in_the_reference(value, expected):
    assert make_divisible(value) == expected


def test_the_head_never_narrows():
    narrow = create_on_meta(ModelSpec(family="v2", width=0.35))
    wide = create_on_meta(ModelSpec(family="v2", width=1.4))
    assert narrow.classifier[1].in_features == 1280
    assert wide.classifier[1].in_features == 1792


def test_a_custom_row_table_builds():
    rows = ((1, 16, 1, 1), (3, 24, 2, 2))
    spec = ModelSpec(family="v2", num_classes=5, architecture=ArchitectureOptions(rows=rows))
    module = create(spec)
    assert len(module.features) == 1 + 3 + 1
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


def test_a_custom_norm_layer_is_used_throughout():
    from functools import partial

    from mobiledeploy.models.blocks import Layers
    from mobiledeploy.models.mobilenet_v2 import MobileNetV2

    module = MobileNetV2(width=0.25, layers=Layers(norm=partial(nn.GroupNorm, 1)))
    assert sum(isinstance(m, nn.GroupNorm) for m in module.modules()) == 52
    assert not any(isinstance(m, nn.BatchNorm2d) for m in module.modules())
