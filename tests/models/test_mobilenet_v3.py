"""The architecture of MobileNet V3."""

import pytest
import torch
from torch import nn

from mobiledeploy.models import build
from mobiledeploy.models.blocks import STANDARD_LAYERS, SqueezeExcitation
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec


def create(family="v3-small", *, width=0.5, **options):
    architecture = ArchitectureOptions(**options)
    return build.create(ModelSpec(family=family, width=width, architecture=architecture))


def test_the_activations_are_those_of_the_table():
    for block, name in ((1, nn.ReLU), (3, nn.ReLU), (4, nn.Hardswish), (11, nn.Hardswish)):
        assert isinstance(create().features[block].block[0][2], name)


@pytest.mark.parametrize("family", ["v3-large", "v3-small"])
def test_dilation_keeps_the_resolution_of_the_last_stage(family):
    x = torch.zeros(1, 3, 96, 96)
    assert create(family).features(x).shape[2:] == (3, 3)
    assert create(family, dilated=True).features(x).shape[2:] == (6, 6)


def test_the_reduced_tail_halves_the_last_stage_and_the_head():
    full, reduced = create("v3-large", width=1.0), create("v3-large", width=1.0, reduced_tail=True)
    assert (full.classifier[0].in_features, full.classifier[0].out_features) == (960, 1280)
    assert (reduced.classifier[0].in_features, reduced.classifier[0].out_features) == (480, 640)
    assert full.features[13].block[0][0].out_channels == 672
    assert reduced.features[13].block[0][0].out_channels == 672


def test_the_slim_width_rule_keeps_the_head():
    assert create(width=0.75).classifier[0].out_features == 768
    assert create(width=0.75, width_rule="slim").classifier[0].out_features == 1024
    assert create(width=1.25, width_rule="slim").classifier[0].out_features == 1280


def test_the_slim_width_rule_expands_from_the_rounded_input():
    # 24 channels at 0.75 become 24 (18 would lose a quarter); 88 / 24 of that is 88, not 66.
    def expanded(rule):
        return create(width=0.75, width_rule=rule).features[3].block[0][0].out_channels

    assert (expanded("torchvision"), expanded("slim")) == (64, 88)


def test_squeeze_and_excitation_scales_channels_by_a_gate_from_0_to_1():
    layer = SqueezeExcitation(4, 2, gate="hard-sigmoid", layers=STANDARD_LAYERS)
    x = torch.ones(1, 4, 3, 3)
    nn.init.zeros_(layer.fc2.weight)
    layer.fc2.bias.data = torch.tensor([-3.0, 0.0, 1.5, 3.0])  # h-sigmoid(b) = (b + 3) / 6
    assert layer(x)[0, :, 1, 1].tolist() == pytest.approx([0.0, 0.5, 0.75, 1.0])


def test_the_sigmoid_gate_has_norms_instead_of_biases():
    module = create(se_gate="sigmoid")
    squeezes = [m for m in module.modules() if isinstance(m, SqueezeExcitation)]
    assert len(squeezes) == 9
    for squeeze in squeezes:
        assert squeeze.fc1[0].bias is None
        assert isinstance(squeeze.fc1[1], nn.BatchNorm2d)
        assert isinstance(squeeze.fc2[1], nn.BatchNorm2d)
    assert not any(isinstance(m, nn.Hardsigmoid) for m in module.modules())


def test_the_norms_have_tensorflows_epsilon_by_default():
    def epsilons(**options):
        return {m.eps for m in create(**options).modules() if isinstance(m, nn.BatchNorm2d)}

    assert epsilons() == {1e-3}
    assert epsilons(norm_eps=1e-5) == {1e-5}
