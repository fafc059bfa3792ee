"""Heads behind the pooled features."""

import pytest
import torch
from torch import nn

from mobiledeploy.errors import UsageError
from mobiledeploy.models.build import create
from mobiledeploy.models.config import read_config
from mobiledeploy.models.head import build_head, head_outputs
from mobiledeploy.models.spec import FAMILIES, ArchitectureOptions, ModelSpec

MLP = "dropout,linear:256,relu,linear:5"


def test_a_head_has_the_layers_and_names_of_its_sequential():
    head = build_head("batchnorm,dropout,linear:16:nobias,hardswish,linear:5", 8)
    kinds = [nn.BatchNorm1d, nn.Dropout, nn.Linear, nn.Hardswish, nn.Linear]
    assert [type(layer) for layer in head] == kinds
    assert head[2].bias is None
    assert [tuple(head[at].weight.shape) for at in (2, 4)] == [(16, 8), (5, 16)]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_takes_a_head(family):
    options = ArchitectureOptions(head=MLP)
    spec = ModelSpec(family=family, width=0.25, resolution=32, num_classes=5, architecture=options)
    module = create(spec)
    assert module(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    shapes = [(k, tuple(v.shape)) for k, v in module.state_dict().items() if "classifier" in k]
    assert [name for name, _ in shapes] == [
        f"classifier.{at}.{name}" for at in (1, 3) for name in ("weight", "bias")
    ]
    assert "-head-dropout-linear256-relu-linear5" in spec.name


def test_none_ends_at_the_features():
    options = ArchitectureOptions(head="none")
    spec = ModelSpec(family="v3-small", num_classes=0, architecture=options)
    assert create(spec)(torch.zeros(1, 3, 32, 32)).shape == (1, 576)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dropout", "it has no linear layer"),
        ("linear", "'linear' is no linear layer; expected linear:N"),
        ("linear:0", "'linear:0' is out of range; expected 1 to 1000000 outputs"),
        ("linear:1000001", "'linear:1000001' is out of range"),
        ("linear:" + "9" * 5000, "is out of range"),
        ("linear:5:bias", "'linear:5:bias' is no linear layer"),
        ("relu:3,linear:5", "'relu:3' has a size"),
        ("gelu,linear:5", "'gelu' is no layer; expected linear, batchnorm, dropout, relu"),
        ("", "'' is no layer"),
    ],
)
def test_what_is_no_head_is_refused(text, problem):
    with pytest.raises(UsageError, match=problem):
        head_outputs(text)


def test_the_number_of_classes_is_that_of_the_head():
    options = ArchitectureOptions(head=MLP)
    with pytest.raises(UsageError, match="num_classes is 7; expected 5, as the head"):
        create(ModelSpec(family="v2", num_classes=7, architecture=options))


@pytest.mark.parametrize("place", ["head: {}", "architecture:\n  head: {}"])
def test_a_configuration_holds_a_head(place, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("family: v2\n" + place.format(f'"{MLP}"') + "\n")
    fields = read_config(path)
    assert fields["num_classes"] == 5
    assert fields["architecture"].head == MLP
