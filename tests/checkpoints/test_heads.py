"""Heads of checkpoints: what tensors show is taken, what they do not show is asked for."""

import pytest
import torch
from torch import nn

from mobiledeploy.errors import WeightsError
from mobiledeploy.models.build import create
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.pipeline.build import build

L, D, R, B = nn.Linear, nn.Dropout, nn.ReLU, nn.BatchNorm1d
FEATURES = {"v1": 256, "v2": 1280, "v3-small": 144, "v4-conv-small": 1280}
FASTAI = "batchnorm,dropout,linear:32:nobias,relu,batchnorm,dropout,linear:5:nobias"


def network(family, *layers):
    """Return features of a family with a head of its own."""
    spec = ModelSpec(family=family, width=0.25, num_classes=5, resolution=64)
    module = create(spec)
    module.classifier = nn.Sequential(*layers)
    module.dropout = nn.Identity()
    randomize_batch_norm(module.eval(), 1)
    return module


def loaded(module, family, tmp_path, **fields):
    path = tmp_path / "head.pth"
    torch.save(module.state_dict(), path)
    return build(family, weights=str(path), resolution=64, **fields)


def assert_same(module, model):
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(model.module(images), module(images))


@pytest.mark.parametrize("family", ["v1", "v2", "v4-conv-small"])
def test_an_mlp_head_is_named_and_fits_what_the_error_suggests(family, tmp_path):
    features = FEATURES[family]
    module = network(family, D(), L(features, 32), R(), D(), L(32, 5))
    with pytest.raises(WeightsError) as refused:
        loaded(module, family, tmp_path)
    message, remedy = refused.value.message, refused.value.remedy
    assert f"head of its own: classifier.1 (32, {features}), classifier.4 (5, 32)" in message
    assert '--head "linear:32,ACTIVATION,linear:5"' in remedy
    suggested = remedy.split('"')[1].replace("ACTIVATION", "relu")
    assert_same(module, loaded(module, family, tmp_path, head=suggested))


@pytest.mark.parametrize(
    ("family", "layers", "head"),
    [
        ("v2", (D(), L(1280, 5, bias=False)), "linear:5:nobias"),
        ("v2", (B(1280), D(), L(1280, 5)), "batchnorm,linear:5"),
        ("v3-small", (L(144, 5),), "linear:5"),
        ("v3-small", (), "none"),
    ],
)
def test_a_head_without_unknown_activations_is_inferred(family, layers, head, tmp_path):
    module = network(family, *layers)
    model = loaded(module, family, tmp_path)
    assert model.info.source["architecture"]["head"] == head
    assert_same(module, model)


def test_a_third_layer_behind_v3s_two_is_named(tmp_path):
    layers = (L(144, 64), nn.Hardswish(), D(), L(64, 32), R(), D(), L(32, 5))
    module = network("v3-small", *layers)
    with pytest.raises(WeightsError) as refused:
        loaded(module, "v3-small", tmp_path)
    assert '"linear:64,ACTIVATION,linear:32,ACTIVATION,linear:5"' in refused.value.remedy
    head = "linear:64,hardswish,linear:32,relu,linear:5"
    assert_same(module, loaded(module, "v3-small", tmp_path, head=head))


def test_norms_inside_a_head_are_named_too(tmp_path):
    layers = (B(1280), D(), L(1280, 32, bias=False), R(), B(32), D(), L(32, 5, bias=False))
    module = network("v2", *layers)
    with pytest.raises(WeightsError) as refused:
        loaded(module, "v2", tmp_path)
    assert "batchnorm,linear:32:nobias,batchnorm,ACTIVATION,linear:5" in refused.value.remedy
    assert "before or behind batchnorm" in refused.value.remedy
    assert_same(module, loaded(module, "v2", tmp_path, head=FASTAI))


def test_several_heads_are_refused_by_name(tmp_path):
    module = network("v2")
    module.age, module.sex = L(1280, 1), L(1280, 2)
    with pytest.raises(WeightsError, match=r"several heads: age \(1, 1280\), sex \(2, 1280\)"):
        loaded(module, "v2", tmp_path)


def test_another_head_than_the_checkpoints_is_refused(tmp_path):
    module = network("v2", L(1280, 32), R(), L(32, 5))
    with pytest.raises(WeightsError, match="fits no network"):
        loaded(module, "v2", tmp_path, head="linear:64,relu,linear:5")
