"""The traced graph computes what the module computes, and nothing in it stays float unnoticed."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.errors import DataError, ExportError
from mobiledeploy.graph import find_sites, find_units, trace, weight_and_bias
from mobiledeploy.observe import observe
from mobiledeploy.types import FAMILIES, CalibrationSet

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def model_of(module, resolution=8):
    """Return a folded model around any module of 3-channel images."""
    model = networks.folded("v1", short=True)
    return replace(model, module=module.eval(), spec=replace(model.spec, resolution=resolution))


class Convolution(nn.Module):
    """A convolution, then whatever is given."""

    def __init__(self, after, *, bias=True):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=bias)
        self.after = after

    def forward(self, x):
        return self.after(self.conv(x))


@EVERY_FAMILY
def test_the_traced_graph_is_the_module_in_any_batch(family):
    model = networks.folded(family)
    images = torch.from_numpy(networks.pixels(32, count=3, seed=2))
    with torch.no_grad():
        expected, found = model.module(images), trace(model)(images)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_tracing_leaves_the_model_as_it_was():
    model = networks.folded("v3-small")
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    for parameter in trace(model).parameters():
        parameter.data.zero_()
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@EVERY_FAMILY
def test_every_operator_belongs_to_one_unit(family):
    traced = trace(networks.folded(family))
    units = find_units(traced)
    inside = [node for unit in units for node in {unit.operator, unit.output}]
    assert len(inside) == len(set(inside))
    assert set(inside) == {node for node in traced.graph.nodes if node.op == "call_function"}


def test_a_convolution_and_its_relu6_are_one_unit():
    units = find_units(trace(networks.folded("v2")))
    clamps = [unit.clamp for unit in units if unit.kind == "convolution"]
    # stem, 17 depthwise, 16 expansions and the head clamp; 17 projections do not
    assert clamps.count((0.0, 6.0)) == 1 + 17 + 16 + 1
    assert clamps.count(None) == 17


@pytest.mark.parametrize(
    ("activation", "name"),
    [
        (nn.Sigmoid(), "sigmoid"),
        (nn.SiLU(), "silu"),
        (nn.MaxPool2d(2), "max_pool2d"),
        (nn.Softmax(1), "softmax"),
        (nn.BatchNorm2d(4), "batch_norm"),
        (nn.ReflectionPad2d(1), "pad"),
        (nn.ConstantPad2d(1, 0.5), "pad"),
        (nn.ZeroPad2d((0, 1, 0, -1)), "pad"),
    ],
)
def test_an_operator_without_an_int8_form_is_refused_by_name(activation, name):
    with pytest.raises(ExportError, match=f"{name}.*has no int8 form") as caught:
        find_units(trace(model_of(Convolution(activation))))
    assert "--int8" in caught.value.remedy


def test_a_network_with_a_sigmoid_gate_is_refused_by_name():
    model = networks.folded("v3-small", se_gate="sigmoid")
    with pytest.raises(ExportError, match="sigmoid"):
        find_units(trace(model))


def test_a_hard_sigmoid_becomes_a_clamped_convolution():
    torch.manual_seed(0)
    model = model_of(Convolution(nn.Hardsigmoid()))
    traced = trace(model)
    (unit,) = find_units(traced)
    assert unit.clamp == (0.0, 1.0)
    x = torch.randn(5, 3, 8, 8) * 10
    expected = model.module(x)
    assert {0.0, 1.0} <= set(expected.detach().unique().tolist())  # both ends are reached
    torch.testing.assert_close(traced(x), expected, rtol=0, atol=1e-6)


def test_a_hard_sigmoid_without_a_convolution_of_its_own_is_refused():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return y * nn.functional.hardsigmoid(y)

    after_relu = Convolution(nn.Sequential(nn.ReLU(), nn.Hardsigmoid()))
    for module in (Shared(), after_relu):
        with pytest.raises(ExportError, match=r"hard-sigmoid .* not a convolution of its own"):
            find_units(trace(model_of(module)))


def test_an_activation_that_is_read_before_its_relu_is_not_fused_with_it():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return y + torch.relu(y)

    with pytest.raises(ExportError, match="relu"):
        find_units(trace(model_of(Twice())))


def test_everything_in_a_residual_stream_shares_one_site():
    traced = trace(networks.folded("v2"))
    units = find_units(traced)
    sites = find_sites(traced, units)
    site_of = {node: site for site in sites for node in site.nodes}
    adds = [unit for unit in units if unit.kind == "add"]
    assert len(adds) == 11
    for unit in adds:
        one, other = unit.activations
        assert site_of[one] is site_of[other] is site_of[unit.output]
    # The stages of 24, 32, 64, 96 and 160 channels repeat 2, 3, 4, 3, 3 times: n - 1 adds each. At
    # this width the first block keeps the stem's 8 channels, and so has an add of its own.
    streams = {id(site_of[unit.output]): len(site_of[unit.output].nodes) for unit in adds}
    assert sorted(streams.values()) == [2 + 1, 2 + 1, 3 + 2, 3 + 2, 3 + 2, 4 + 3]


@pytest.mark.parametrize("pad", [nn.ZeroPad2d((0, 1, 0, 1)), nn.ConstantPad2d((0, 1, 0, 1), 0.0)])
def test_padding_shares_its_inputs_encoding_and_keeps_its_bounds(pad):
    traced = trace(model_of(Convolution(nn.Sequential(nn.ReLU6(), pad, nn.Conv2d(4, 2, 3)))))
    units = find_units(traced)
    assert [unit.kind for unit in units] == ["convolution", "pad", "convolution"]
    image, padded, output = find_sites(traced, units)
    assert padded.nodes == (units[0].output, units[1].output)
    assert padded.clamp == (0.0, 6.0)
    assert image.clamp == output.clamp == (-float("inf"), float("inf"))


@EVERY_FAMILY
def test_every_activation_has_exactly_one_site(family):
    traced = trace(networks.folded(family))
    units = find_units(traced)
    nodes = [node for site in find_sites(traced, units) for node in site.nodes]
    assert len(nodes) == len(set(nodes))
    outputs = {unit.output for unit in units}
    assert set(nodes) == outputs | set(traced.graph.find_nodes(op="placeholder"))


def test_a_missing_bias_becomes_zeros_and_changes_nothing():
    model = model_of(Convolution(nn.ReLU(), bias=False))
    traced = trace(model)
    (unit,) = find_units(traced)
    weight, bias = weight_and_bias(traced, unit)
    assert weight.shape == (4, 3, 1, 1)
    assert torch.equal(bias, torch.zeros(4))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(traced(x), model.module(x))
    bias.fill_(1.0)  # the graph reads this very tensor
    assert torch.equal(weight_and_bias(traced, unit)[1], torch.ones(4))
    torch.testing.assert_close(traced(x), torch.relu(model.module.conv(x) + 1))


def calibration_of(images):
    return CalibrationSet(images=images, source="", sha256="")


def test_observing_keeps_extremes_per_image_and_channel():
    model = model_of(Convolution(nn.ReLU()))
    traced = trace(model)
    (source,) = traced.graph.find_nodes(op="placeholder")
    (unit,) = find_units(traced)
    images = np.random.default_rng(0).normal(size=(7, 3, 8, 8)).astype(np.float32)
    seen = observe(traced, [source, unit.output], calibration_of(images))
    np.testing.assert_array_equal(seen[source.name].minima, images.min((2, 3)))
    np.testing.assert_array_equal(seen[source.name].maxima, images.max((2, 3)))
    with torch.no_grad():
        after = model.module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(seen[unit.output.name].maxima, after.max((2, 3)), rtol=1e-6)
    assert seen[unit.output.name].minima.shape == (7, 4)


def test_observing_no_images_is_refused():
    traced = trace(model_of(Convolution(nn.ReLU())))
    with pytest.raises(DataError, match="calibration set is empty"):
        observe(traced, [], calibration_of(np.zeros((0, 3, 8, 8), np.float32)))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_an_activation_that_is_not_finite_is_refused_by_name(poison):
    traced = trace(model_of(Convolution(nn.Identity())))
    (unit,) = find_units(traced)
    images = np.zeros((2, 3, 8, 8), np.float32)
    images[1, 0, 0, 0] = poison
    with pytest.raises(DataError, match=f"{unit.output.name} is not finite"):
        observe(traced, [unit.output], calibration_of(images))
