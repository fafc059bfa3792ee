"""The architecture of MobileNet V1."""

import pytest
import torch
from torch import nn

from mobiledeploy.models import build
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec


def create(**options):
    architecture = ArchitectureOptions(**options)
    return build.create(ModelSpec(family="v1", width=0.25, architecture=architecture))


def test_the_last_feature_map_has_a_thirty_second_of_the_resolution():
    features = create().features(torch.zeros(1, 3, 224, 224))
    assert features.shape == (1, 256, 7, 7)


def test_kernels_per_layer_multiplies_the_depthwise_filters_only():
    block = create(kernels_per_layer=2).features[1]
    depthwise, pointwise = block[0][0], block[1][0]
    assert (depthwise.in_channels, depthwise.out_channels, depthwise.groups) == (8, 16, 8)
    assert (pointwise.in_channels, pointwise.out_channels) == (16, 16)


@pytest.mark.parametrize(("activation", "layer"), [("relu", nn.ReLU), ("relu6", nn.ReLU6)])
def test_the_requested_activation_is_used_everywhere(activation, layer):
    found = [type(m) for m in create(activation=activation).modules() if "ReLU" in type(m).__name__]
    assert found == [layer] * 27


def test_no_layer_has_fewer_than_eight_channels():
    module = build.create(ModelSpec(family="v1", width=0.1))
    channels = [m.out_channels for m in module.modules() if isinstance(m, nn.Conv2d)]
    assert min(channels) == 8
