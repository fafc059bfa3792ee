"""Preprocessing folding: pixels give what normalised images give, borders included."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.data.pixels import artifact_inputs, folded_inputs
from mobiledeploy.errors import UsageError
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fold_graph import fold_graph
from mobiledeploy.graph.fold_preprocessing import fold_preprocessing
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.network import Preprocessing

EXACT = 1e-9


def both_outputs(model, images):
    """Return the float64 outputs of normalise-then-run, and of the network that takes pixels."""
    image = model.info.input
    pixels = artifact_inputs(images, image)
    model = replace(model, module=trace(model).double())
    folded = fold_preprocessing(model)
    preprocessing = image.preprocessing
    planes = np.rint(images_as_pixels(images, preprocessing)).transpose(0, 2, 3, 1) / 255
    normalised = ((planes - preprocessing.mean) / preprocessing.std).transpose(0, 3, 1, 2)
    with torch.no_grad():
        before = model.module(torch.from_numpy(normalised))
        after = folded.module(torch.from_numpy(folded_inputs(pixels, image).astype(np.float64)))
    assert float(before.std(0).max()) > 0
    return before.numpy(), after.numpy()


def images_as_pixels(images, preprocessing):
    mean, std = (
        np.array(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std)
    )
    return (images.astype(np.float64) * std + mean) * 255


@pytest.mark.parametrize("family", networks.FAMILIES)
def test_every_family_computes_the_same_from_pixels(family):
    short = family in networks.SHORT_ROWS
    model = networks.taking(networks.folded(family, 64, short=short), "rgba-u8")
    before, after = both_outputs(model, networks.pixels(64, count=3))
    assert np.abs(after - before).max() <= EXACT


@pytest.mark.parametrize("format_", ["rgba-u8", "bgra-u8", "rgb-u8", "rgb-u8-nchw"])
@pytest.mark.parametrize("options", [{}, {"padding": "same"}], ids=["symmetric", "same"])
def test_every_format_and_padding_at_an_input_that_is_not_square(format_, options):
    size = (32, 64)
    model = networks.taking(networks.folded("v1", size, short=True, **options), format_)
    before, after = both_outputs(model, networks.pixels(size, count=3))
    assert np.abs(after - before).max() <= EXACT


def of_channels(module, channels, format_, preprocessing=None):
    model = networks.model_of(module)
    mean = Preprocessing(mean=(0.3,) * channels, std=(0.2,) * channels)
    image = replace(model.info.input, channels=channels, preprocessing=preprocessing or mean)
    return networks.taking(networks.described(model, input=image), format_)


@pytest.mark.parametrize("format_", ["gray-u8", "gray-u8-nchw"])
def test_gray_pixels(format_):
    module = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 3))
    model = of_channels(module, 1, format_)
    gray = np.random.default_rng(0).integers(0, 256, (3, 1, 32, 32)).astype(np.float32)
    before, after = both_outputs(model, (gray / 255 - np.float32(0.3)) / np.float32(0.2))
    assert np.abs(after - before).max() <= EXACT


@pytest.mark.parametrize("format_", ["rgba-u8", "rgb-u8"])
def test_borders_and_the_inside_are_equal_apart(format_):
    """Fails if alpha's weights go into the bias, which reaches beyond the border."""
    model = networks.taking(networks.model_of(nn.Conv2d(3, 8, 5, 2, 2)), format_)
    before, after = both_outputs(model, networks.pixels(32, count=3))
    inside = np.s_[:, :, 1:-1, 1:-1]
    border = np.ones(before.shape, bool)
    border[inside] = False
    assert np.abs(after - before)[inside].max() <= EXACT
    assert np.abs(after - before)[border].max() <= EXACT


def test_the_first_layers_of_own_networks():
    class TwoStems(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(3)  # becomes a depthwise convolution
            self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            padded = nn.functional.pad(x, (1, 2, 0, 1))
            stems = self.one(padded).mean([2, 3]) + self.two(x).mean([2, 3])
            return stems + self.norm(x).mean([2, 3]).sum(1, keepdim=True)

    module = TwoStems().eval()
    module.norm.running_mean.uniform_(-1, 1)
    module.norm.running_var.uniform_(0.5, 2)
    model = networks.taking(fold_graph(networks.model_of(module)), "bgra-u8")
    before, after = both_outputs(model, networks.pixels(32, count=3))
    assert np.abs(after - before).max() <= EXACT


def test_the_former_weight_is_gone():
    model = networks.taking(networks.folded("v2", short=True), "rgba-u8")
    folded = fold_preprocessing(model)
    names = [name for name, _ in folded.module.named_parameters()]
    assert "features.0.0.weight" not in names
    assert "conv2d_pixel_weight" in names
    assert find_fused_ops(trace(folded))[0].operator.args[0].op == "placeholder"


def test_a_float_input_stays_as_it_is():
    model = networks.folded("v2", short=True)
    assert fold_preprocessing(model) is model


def test_another_first_operator_is_refused_by_name():
    module = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = networks.taking(fold_graph(networks.model_of(module)), "rgba-u8")
    with pytest.raises(UsageError, match=r"aten.relu in module 0 reads the image"):
        fold_preprocessing(model)


@pytest.mark.parametrize(("format_", "channels"), [("gray-u8", 3), ("rgba-u8", 1), ("rgb-u8", 2)])
def test_a_format_of_other_channels_is_refused(format_, channels):
    module = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(UsageError, match=rf"{format_} does not fit .* {channels} input channel"):
        fold_preprocessing(of_channels(module, channels, format_))
