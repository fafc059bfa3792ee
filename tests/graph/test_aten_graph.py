"""The traced graph computes what the module computes, and nothing in it stays float unnoticed."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.errors import DataError, ExportError
from mobiledeploy.graph.aten_graph import (
    find_fused_ops,
    find_shared_encodings,
    trace,
    weight_and_bias,
)
from mobiledeploy.graph.observers import observe
from mobiledeploy.models.spec import FAMILIES
from mobiledeploy.network import CalibrationSet

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def model_of(module, resolution=8):
    """Return a folded model around any module of 3-channel images."""
    model = networks.folded("v1", short=True)
    input_ = replace(model.info.input, height=resolution, width=resolution)
    return replace(networks.described(model, input=input_), module=module.eval())


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
    ops = find_fused_ops(traced)
    inside = [node for op in ops for node in {op.operator, op.output}]
    assert len(inside) == len(set(inside))
    assert set(inside) == {node for node in traced.graph.nodes if node.op == "call_function"}


def test_a_convolution_and_its_relu6_are_one_unit():
    ops = find_fused_ops(trace(networks.folded("v2")))
    clamps = [op.clamp for op in ops if op.kind == "convolution"]
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
        find_fused_ops(trace(model_of(Convolution(activation))))
    assert "--int8" in caught.value.remedy


def test_a_network_with_a_sigmoid_gate_is_refused_by_name():
    model = networks.folded("v3-small", se_gate="sigmoid")
    with pytest.raises(ExportError, match="sigmoid"):
        find_fused_ops(trace(model))


def test_a_hard_sigmoid_becomes_a_clamped_convolution():
    torch.manual_seed(0)
    model = model_of(Convolution(nn.Hardsigmoid()))
    traced = trace(model)
    (op,) = find_fused_ops(traced)
    assert op.clamp == (0.0, 1.0)
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
        with pytest.raises(ExportError, match=r"hard-sigmoid .* has no int8 form: it follows"):
            find_fused_ops(trace(model_of(module)))


def test_an_activation_that_is_read_before_its_relu_is_not_fused_with_it():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return y + torch.relu(y)

    with pytest.raises(ExportError, match="relu"):
        find_fused_ops(trace(model_of(Twice())))


def test_everything_in_a_residual_stream_shares_one_site():
    traced = trace(networks.folded("v2"))
    ops = find_fused_ops(traced)
    shared_encodings = find_shared_encodings(traced, ops)
    shared_encoding_of = {node: shared for shared in shared_encodings for node in shared.nodes}
    adds = [op for op in ops if op.kind == "add"]
    assert len(adds) == 11
    for op in adds:
        one, other = op.activations
        assert shared_encoding_of[one] is shared_encoding_of[other] is shared_encoding_of[op.output]
    # The stages of 24, 32, 64, 96 and 160 channels repeat 2, 3, 4, 3, 3 times: n - 1 adds each. At
    # this width the first block keeps the stem's 8 channels, and so has an add of its own.
    streams = {
        id(shared_encoding_of[op.output]): len(shared_encoding_of[op.output].nodes) for op in adds
    }
    assert sorted(streams.values()) == [2 + 1, 2 + 1, 3 + 2, 3 + 2, 3 + 2, 4 + 3]


@pytest.mark.parametrize("pad", [nn.ZeroPad2d((0, 1, 0, 1)), nn.ConstantPad2d((0, 1, 0, 1), 0.0)])
def test_padding_shares_its_inputs_encoding_and_keeps_its_bounds(pad):
    traced = trace(model_of(Convolution(nn.Sequential(nn.ReLU6(), pad, nn.Conv2d(4, 2, 3)))))
    ops = find_fused_ops(traced)
    assert [op.kind for op in ops] == ["convolution", "pad", "convolution"]
    image, padded, output = find_shared_encodings(traced, ops)
    assert padded.nodes == (ops[0].output, ops[1].output)
    assert padded.clamp == (0.0, 6.0)
    assert image.clamp == output.clamp == (-float("inf"), float("inf"))


@EVERY_FAMILY
def test_every_activation_has_exactly_one_site(family):
    traced = trace(networks.folded(family))
    ops = find_fused_ops(traced)
    nodes = [node for shared in find_shared_encodings(traced, ops) for node in shared.nodes]
    assert len(nodes) == len(set(nodes))
    outputs = {op.output for op in ops}
    assert set(nodes) == outputs | set(traced.graph.find_nodes(op="placeholder"))


def test_a_missing_bias_becomes_zeros_and_changes_nothing():
    model = model_of(Convolution(nn.ReLU(), bias=False))
    traced = trace(model)
    (op,) = find_fused_ops(traced)
    weight, bias = weight_and_bias(traced, op)
    assert weight.shape == (4, 3, 1, 1)
    assert torch.equal(bias, torch.zeros(4))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(traced(x), model.module(x))
    bias.fill_(1.0)  # the graph reads this very tensor
    assert torch.equal(weight_and_bias(traced, op)[1], torch.ones(4))
    torch.testing.assert_close(traced(x), torch.relu(model.module.conv(x) + 1))


def calibration_of(images):
    return CalibrationSet(images=images, source="", sha256="")


def test_observing_keeps_extremes_per_image_and_channel():
    model = model_of(Convolution(nn.ReLU()))
    traced = trace(model)
    (source,) = traced.graph.find_nodes(op="placeholder")
    (op,) = find_fused_ops(traced)
    images = np.random.default_rng(0).normal(size=(7, 3, 8, 8)).astype(np.float32)
    seen = observe(traced, [source, op.output], calibration_of(images))
    np.testing.assert_array_equal(seen[source.name].minima, images.min((2, 3)))
    np.testing.assert_array_equal(seen[source.name].maxima, images.max((2, 3)))
    with torch.no_grad():
        after = model.module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(seen[op.output.name].maxima, after.max((2, 3)), rtol=1e-6)
    assert seen[op.output.name].minima.shape == (7, 4)


def test_observing_no_images_is_refused():
    traced = trace(model_of(Convolution(nn.ReLU())))
    with pytest.raises(DataError, match="calibration set is empty"):
        observe(traced, [], calibration_of(np.zeros((0, 3, 8, 8), np.float32)))


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_an_activation_that_is_not_finite_is_refused_by_name(poison):
    traced = trace(model_of(Convolution(nn.Identity())))
    (op,) = find_fused_ops(traced)
    images = np.zeros((2, 3, 8, 8), np.float32)
    images[1, 0, 0, 0] = poison
    with pytest.raises(DataError, match=f"{op.output.name} is infinite or NaN"):
        observe(traced, [op.output], calibration_of(images))
