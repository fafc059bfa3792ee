"""The architecture of MobileNet V4."""

import pytest
import torch
from torch import nn

from mobiledeploy.errors import UsageError
from mobiledeploy.models.blocks import STANDARD_LAYERS
from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.mobilenet_v4 import Row, UniversalInvertedBottleneck
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec, family_named
from mobiledeploy.models.summary import summarize


def bottleneck(row, channels=8):
    return UniversalInvertedBottleneck(channels, row.exp, row.out, row, layers=STANDARD_LAYERS)


# Parameters that timm 1.0.31 counts in its own networks; the paper states 3.8 M for Conv-S.
@pytest.mark.parametrize(
    ("family", "width", "params", "macs_millions"),
    [
        ("v4-conv-small", 1.0, 3_774_024, 186.01),
        ("v4-conv-small", 0.5, 2_238_952, 64.74),
        ("v4-conv-small", 0.35, 1_905_384, 47.72),
        ("v4-conv-medium", 1.0, 9_715_512, 827.65),
        ("v4-conv-large", 1.0, 32_590_864, 2171.34),
    ],
)
def test_the_networks_have_the_size_of_timms(family, width, params, macs_millions):
    summary = summarize(ModelSpec(family=family, width=width))
    assert summary.params == params
    assert round(summary.macs / 1e6, 2) == macs_millions


@pytest.mark.parametrize(
    ("k1", "k2", "strides"),
    [(3, 5, [1, 1, 2, 1]), (0, 5, [1, 2, 1]), (3, 0, [2, 1, 1])],
    ids=["ExtraDW", "IB", "ConvNext"],
)
def test_the_last_depthwise_convolution_has_the_stride(k1, k2, strides):
    block = bottleneck(Row("UIB", k1, k2, exp=16, out=8, s=2))
    convolutions = [each for each in block.modules() if isinstance(each, nn.Conv2d)]
    assert [each.stride[0] for each in convolutions] == strides


def test_the_first_depthwise_convolution_and_the_projection_are_linear():
    block = bottleneck(Row("UIB", 3, 5, exp=16, out=8, s=1))
    active = [nn.ReLU in map(type, part) for part in block.children()]
    assert active == [False, True, True, False]


@pytest.mark.parametrize(("out", "s", "residual"), [(8, 1, True), (8, 2, False), (16, 1, False)])
def test_a_block_adds_its_input_only_where_shapes_agree(out, s, residual):
    block = bottleneck(Row("UIB", 3, 3, exp=16, out=out, s=s)).eval()
    nn.init.zeros_(block.pw_proj.bn.weight)  # the block's own path gives zero
    assert bool(block(torch.ones(1, 8, 8, 8)).any()) is residual


def test_a_narrow_network_keeps_the_stem_and_the_hidden_layer():
    narrow = create_on_meta(ModelSpec(family="v4-conv-small", width=0.35))
    wide = create_on_meta(ModelSpec(family="v4-conv-small", width=1.25))
    assert (narrow.conv_stem.out_channels, wide.conv_stem.out_channels) == (32, 40)
    assert narrow.classifier.in_features == wide.classifier.in_features == 1280


def test_a_custom_row_table_builds():
    rows = (("FusedIB", 3, 0, 64, 16, 2), ("UIB", 0, 3, 48, 24, 2), ("Conv", 1, 0, 0, 40, 1))
    options = ArchitectureOptions(rows=rows)
    module = create(ModelSpec(family="v4-conv-small", num_classes=5, architecture=options))
    assert [len(stage) for stage in module.blocks] == [1, 2, 1]
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 5)


@pytest.mark.parametrize(
    ("row", "named"),
    [
        (("UIB", 0, 0, 48, 24, 2), "column s is 2; expected 1 where k1 and k2 are 0"),
        (("Conv", 0, 0, 0, 24, 1), "column k1 is 0"),
        (("FusedIB", 3, 3, 48, 24, 1), "column k2 is 3; expected 0 in a FusedIB"),
        (("Conv", 3, 0, 48, 24, 1), "column exp is 48; expected 0 in a Conv"),
        (("UIB", 3, 3, 0, 24, 1), "column exp is 0; expected at least 1 in a UIB"),
        (("MQA", 3, 3, 48, 24, 1), "column block is 'MQA'; expected Conv, FusedIB or UIB"),
    ],
)
def test_a_row_that_cannot_be_built_is_refused(row, named):
    options = ArchitectureOptions(rows=(row,))
    with pytest.raises(UsageError, match=named):
        create_on_meta(ModelSpec(family="v4-conv-small", architecture=options))


@pytest.mark.parametrize("name", ["v4-hybrid-medium", "mobilenetv4_hybrid_large"])
def test_hybrids_are_refused_by_name(name):
    with pytest.raises(UsageError, match=f"{name} has attention layers") as refused:
        family_named(name)
    assert "v4-conv-medium" in refused.value.remedy
