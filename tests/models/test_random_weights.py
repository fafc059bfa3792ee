"""Random networks keep a signal: BN statistics that look trained."""

import pytest
import torch
from torch import nn

from mobiledeploy.errors import UsageError
from mobiledeploy.models import initialize
from mobiledeploy.models.build import create
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.models.spec import FAMILIES, ModelSpec


def randomized(family, *, width=0.25, seed=1):
    module = create(ModelSpec(family=family, width=width))
    randomize_batch_norm(module, seed)
    return module


def photographs(count, side):
    """Return smooth patterns with texture, similar to photographs."""
    generator = torch.Generator().manual_seed(11)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    smooth = nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return smooth + 0.3 * torch.randn(count, 3, side, side, generator=generator)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", [1, 2])
def test_activations_neither_vanish_nor_explode_and_logits_depend_on_the_image(family, seed):
    module = randomized(family, seed=seed)
    spreads = []
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(lambda _, __, out: spreads.append(float(out.std())))
    with torch.no_grad():
        logits = module(photographs(6, 96))
    assert min(spreads) > 0.1
    assert max(spreads) < 10
    assert float(logits.std(0).mean()) > 0.02
    assert float(logits.abs().max()) < 100


def test_the_noise_images_differ_in_detail():
    images = initialize._natural_noise(3, (128, 128), torch.Generator().manual_seed(0))
    busyness = images.diff(dim=3).square().mean((1, 2, 3)) / images.square().mean((1, 2, 3))
    assert float(busyness.max()) > 5 * float(busyness.min())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_norm_is_far_from_the_identity(family):
    for layer in randomized(family).modules():
        if isinstance(layer, nn.BatchNorm2d):
            fresh = nn.BatchNorm2d(layer.num_features).state_dict()
            for name in ("weight", "bias", "running_mean", "running_var"):
                distance = (layer.state_dict()[name] - fresh[name]).abs().max()
                assert float(distance) > 0.05, name
            assert float(layer.running_var.min()) > 0


def test_the_same_seed_gives_the_same_statistics_and_another_seed_others():
    first, again, other = (randomized("v3-small", seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["features.0.1.running_mean"], other["features.0.1.running_mean"])


def test_a_module_without_batch_norm_is_refused():
    with pytest.raises(UsageError, match="no BatchNorm"):
        randomize_batch_norm(nn.Sequential(nn.Conv2d(3, 3, 1)), 0)


def test_only_batch_norm_is_changed_and_no_hook_is_left():
    module = create(ModelSpec(family="v2", width=0.25))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    randomize_batch_norm(module, 1)
    norms = {name for name, layer in module.named_modules() if isinstance(layer, nn.BatchNorm2d)}
    for key, value in module.state_dict().items():
        assert key.rpartition(".")[0] in norms or torch.equal(value, before[key])
    frozen = {key: value.clone() for key, value in module.state_dict().items()}
    module(torch.ones(2, 3, 64, 64))
    assert all(torch.equal(value, frozen[key]) for key, value in module.state_dict().items())
