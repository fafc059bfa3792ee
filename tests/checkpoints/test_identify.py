"""Architectures are read from the tensors, and from options where no tensor shows them."""

from dataclasses import replace

import pytest
import torch
from implementations import distinct
from refused_checkpoints import refused_by_inspection

from mobiledeploy.checkpoints.identify import inspect_checkpoint
from mobiledeploy.checkpoints.load import load_weights
from mobiledeploy.checkpoints.resolve import resolve
from mobiledeploy.errors import UsageError, WeightsError
from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec

ROWS = ((1, 16, 1, 1), (4, 24, 2, 2), (6, 40, 3, 2))


def test_a_custom_row_table_is_found_if_it_is_given(saved):
    options = ArchitectureOptions(rows=ROWS)
    spec = ModelSpec(family="v2", width=0.5, num_classes=7, architecture=options)
    path = saved(distinct(spec).state_dict())
    info = inspect_checkpoint(path, create_on_meta, options)
    assert (info.family, info.width, info.num_classes) == ("v2", 0.5, 7)
    assert info.architecture == options
    refused_by_inspection(path, "is not a MobileNet|fits no network")


@pytest.mark.parametrize(("family", "width"), [("v1", 0.37), ("v2", 0.5)])
@pytest.mark.parametrize("named", [True, False])
def test_a_network_without_norms_is_found_if_that_is_given(family, width, named, saved):
    options = ArchitectureOptions(norm="none")
    spec = ModelSpec(family=family, width=width, num_classes=7, architecture=options)
    state = distinct(spec).state_dict()
    if not named:
        state = {  # a convolution's weight and bias follow each other
            f"layer{number // 2}.{key.rsplit('.', 1)[1]}": tensor
            for number, (key, tensor) in enumerate(state.items())
        }
    path = saved(state)
    info = inspect_checkpoint(path, create_on_meta, options)
    assert (info.family, info.width, info.num_classes) == (family, width, 7)
    assert info.architecture == options
    refused_by_inspection(path, "is not a MobileNet")


def test_a_checkpoint_without_norms_is_told_of_the_option(saved):
    options = ArchitectureOptions(norm="none")
    path = saved(distinct(ModelSpec(family="v2", architecture=options)).state_dict())
    with pytest.raises(WeightsError) as caught:
        inspect_checkpoint(path, create_on_meta)
    assert "has no BatchNorm; `norm: none`" in caught.value.remedy


def test_options_of_different_families_are_refused(saved):
    options = ArchitectureOptions(kernels_per_layer=2, round_nearest=4)
    with pytest.raises(UsageError, match="No family has the architecture options"):
        inspect_checkpoint(saved(), create_on_meta, options)


def test_unusual_stem_and_head_widths_are_found(saved):
    options = ArchitectureOptions(stem_width=24, head_width=640)
    spec = ModelSpec(family="v2", width=0.25, num_classes=7, architecture=options)
    info = inspect_checkpoint(saved(distinct(spec).state_dict()), create_on_meta)
    assert info.architecture == options


@pytest.mark.parametrize(
    ("family", "width", "options"),
    [
        ("v1", 0.57, {}),
        ("v1", 0.37, {"stem_width": 24}),
        ("v2", 0.33, {}),
        ("v2", 2.13, {}),
        ("v2", 0.33, {"round_nearest": 4}),
        ("v2", 0.5, {"head_width": 500}),
        ("v3-small", 0.33, {}),
        ("v3-small", 0.5, {"hidden_width": 100}),
        ("v3-small", 1.0, {"hidden_width": 100}),
        ("v3-small", 1.0, {"head_width": 640}),
        ("v3-small", 0.75, {"width_rule": "slim", "hidden_width": 333}),
        ("v3-large", 0.35, {"stem_width": 24, "hidden_width": 1000}),
    ],
)
def test_widths_are_read_from_the_tensors(family, width, options, saved):
    """Any width multiplier, and the channels of stem, head and hidden layer at any width."""
    architecture = ArchitectureOptions(**options)
    spec = ModelSpec(family=family, width=width, num_classes=7, architecture=architecture)
    info = inspect_checkpoint(saved(distinct(spec).state_dict()), create_on_meta)
    assert (info.family, info.width, info.architecture) == (family, width, architecture)


def test_a_network_for_small_images_is_loaded_with_its_strides(saved):
    """As in kuangliu/pytorch-cifar: stem and first stage have stride 1, which no tensor shows."""
    rows = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    rows += ((6, 160, 3, 2), (6, 320, 1, 1))
    options = ArchitectureOptions(stem_stride=1, rows=rows)
    spec = ModelSpec(family="v2", width=0.5, num_classes=10, resolution=32, architecture=options)
    trained = distinct(spec)
    path = saved(trained.state_dict())
    asked = ModelSpec(family="v2", resolution=32, weights=str(path), architecture=options)
    found = resolve(asked, {"family", "resolution", "architecture"}, create_on_meta)
    assert replace(found.spec, weights="imagenet") == spec
    module = create(found.spec)
    load_weights(module, found.spec)
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(image), trained(image), rtol=0, atol=0)
    assert module.features[:3](image).shape[2:] == (32, 32)


@pytest.mark.parametrize("family", ["v1", "v2", "v3-large", "v3-small"])
def test_feature_extractors_and_other_channels_are_found(family, saved):
    spec = ModelSpec(family=family, width=0.5, num_classes=0, in_channels=1)
    info = inspect_checkpoint(saved(distinct(spec).state_dict()), create_on_meta)
    assert (info.family, info.width, info.num_classes, info.in_channels) == (family, 0.5, 0, 1)
    assert info.preprocessing is None


def test_a_gate_with_norms_is_found(saved):
    options = ArchitectureOptions(se_gate="sigmoid")
    spec = ModelSpec(family="v3-small", width=0.5, num_classes=7, architecture=options)
    info = inspect_checkpoint(saved(distinct(spec).state_dict()), create_on_meta)
    assert info.architecture == options
