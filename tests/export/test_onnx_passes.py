"""Single ONNX passes on small graphs: what they change and what they refuse.

`test_exactness` compares the result of all passes with the integer reference.
"""

import json
import subprocess
import sys
from importlib.metadata import version

import networks
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.fold_pads import FoldPads
from mobiledeploy.export.onnx_passes.lowest_opset import LowestOpset
from mobiledeploy.export.onnx_passes.name_layers import NameConstants, NameLayers
from mobiledeploy.export.onnx_passes.pad_channels import PadDepthwiseChannels
from mobiledeploy.export.write import export_onnx
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.onnxruntime import save_optimized

PADDED = """
<ir_version: 10, opset_import: ["": 20]>
padded (float[1,2,6,5] x) => (float[1,1,H,W] y)
<float s = {{0.5}}, float other = {{0.25}}, int8 z = {{3}}, float zero = {{0}}, float one = {{1}},
 int64[8] amounts = {{{amounts}}},
 float[1,2,2,3] w = {{1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12}}>
{{
    q0 = QuantizeLinear(x, s, z)
    d0 = DequantizeLinear(q0, s, z)
    p = Pad(d0, amounts, {filler})
    q1 = QuantizeLinear(p, {scale}, z)
    d1 = DequantizeLinear(q1, {scale}, z)
    y = {reader}
}}
"""
CONVOLUTION = "Conv<strides=[1,2], pads=[0,1,1,0]>(d1, w)"


def graph(*, amounts="0,0,1,2,0,0,3,0", filler="zero", scale="s", reader=CONVOLUTION):
    """Return a graph with a padding (top 1, left 2, bottom 3) and a convolution that pads too."""
    text = PADDED.format(amounts=amounts, filler=filler, scale=scale, reader=reader)
    return onnx.parser.parse_model(text)


def test_a_padding_is_folded_without_changing_the_output():
    model = graph()
    folded = ir.from_proto(model)
    FoldPads()(folded)
    assert [node.op_type for node in folded.graph] == ["QuantizeLinear", "DequantizeLinear", "Conv"]
    x = np.random.default_rng(0).normal(size=(1, 2, 6, 5)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
        for proto in (model, ir.to_proto(folded))
    )
    assert before.shape == (1, 1, 10, 3)
    assert len(np.unique(before)) > 10
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amounts": "0,1,0,0,0,0,1,1"}, "more than add zeros to height and width"),
        ({"amounts": "0,0,0,0,1,0,1,1"}, "more than add zeros to height and width"),
        ({"filler": "one"}, "more than add zeros"),
        ({"scale": "other"}, "not read by a convolution"),
        ({"reader": "Relu(d1)"}, "not read by a convolution"),
        ({"reader": "Add(d1, d1)"}, "Expected one reader"),
    ],
)
def test_a_padding_that_cannot_be_folded_is_refused(change, reason):
    with pytest.raises(ExportError, match=reason):
        FoldPads()(ir.from_proto(graph(**change)))


def optimized(model, tmp_path):
    """Return the graph as ONNX Runtime optimizes it."""
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    onnx.save(model, source)
    save_optimized(source, target)
    return onnx.load(target).graph


def weights_of_convolutions(graph):
    """Yield (groups, shape of the weight) of each integer convolution."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "QLinearConv":
            groups = [a.i for a in node.attribute if a.name == "group"]
            yield (groups or [1])[0], shapes[node.input[3]]


@pytest.mark.ci
def test_channels_are_padded_for_the_direct_kernels(exported_to, tmp_path):
    """V3-Small at width 0.25 has depthwise convolutions of 8, 24, 40 and 72 channels."""
    stored = onnx.load(exported_to("onnx", "v3-small", 64, short=False).path)
    found = list(weights_of_convolutions(optimized(stored, tmp_path)))
    assert len(found) == 52
    depthwise = [groups for groups, _ in found if groups > 1]
    assert len(depthwise) == 11
    assert all(groups % 16 == 0 for groups in depthwise)
    assert found[0] == (1, (found[0][1][0], 12, 1, 3))  # the rows of the kernel are channels


DEPTHWISE = """
<ir_version: 10, opset_import: ["": 20]>
unaligned (float[1,24,6,5] x) => (float[1,24,6,5] y)
<float s = {0.5}, uint8 z = {3}, float[24] ws = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1},
 int8[24,1,1,1] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}>
{
    q0 = QuantizeLinear(x, s, z)
    d0 = DequantizeLinear(q0, s, z)
    dw = DequantizeLinear<axis=0>(w, ws)
    c = Conv<group=24>(d0, dw)
    q1 = QuantizeLinear(c, s, z)
    y = DequantizeLinear(q1, s, z)
}
"""


def test_channels_of_inputs_and_outputs_are_not_padded():
    model = onnx.parser.parse_model(DEPTHWISE)
    graph_ = ir.from_proto(model)
    assert not PadDepthwiseChannels()(graph_).modified
    (convolution,) = (node for node in graph_.graph if node.op_type == "Conv")
    assert convolution.attributes["group"].as_int() == 24


SHARED = """
<ir_version: 8, opset_import: ["": 14]>
twice (float[1,1,2,2] x) => (float[1,1,2,2] y)
<float s = {0.5}, uint8 z = {3}, float[1] val_0 = {0.25}, int8[1] val_1 = {0},
 int8[1,1,1,1] p = {7}>
{
    q = QuantizeLinear(x, s, z)
    d = DequantizeLinear(q, s, z)
    w = DequantizeLinear<axis=0>(p, val_0, val_1)
    c = Conv(d, w)
    w2 = DequantizeLinear<axis=0>(p, val_0, val_1)
    y = Conv(c, w2)
}
"""


@pytest.mark.ci
def test_weights_do_not_share_zero_points(tmp_path):
    """ONNX Runtime would refuse the graph when it uses uint8 weights: x86 without VNNI."""
    model = networks.quantized("v2", short=True)
    artifact = export_onnx(model, tmp_path / "own.onnx")
    graph = onnx.load(artifact.path).graph
    constants = {tensor.name for tensor in graph.initializer}
    read = [name for node in graph.node for name in node.input]
    of_weights = [
        node.input[2]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0].endswith(".weight")
    ]
    assert set(of_weights) < constants
    assert of_weights
    assert all(read.count(name) == 1 for name in of_weights)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(artifact.path, options)
    images = networks.pixels(32, seed=1)
    expected = IntegerReference(model).run({"input": images})["logits"]
    assert np.array_equal(session.run(None, {"input": images})[0], expected)


OPERATORS = """
<ir_version: 8, opset_import: ["": 18]>
network (float[1,4,6,6] x) => (float[N,C,H,W] y)
<int64[8] amounts = {{0,0,1,1,0,0,1,1}}, float zero = {{0}}, int64[2] axes = {{2,3}},
 float[4] gamma = {{1,1,1,1}}, float[4,4,1,1] w = {{1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}}>
{{
    y = {operator}
}}
"""


@pytest.mark.parametrize(
    ("operator", "opset", "ir_version"),
    [
        ("Conv(x, w)", 14, 7),  # since 11: the lowest opset of int8 networks is enough
        ("Add(x, x)", 14, 7),
        ("HardSwish(x)", 14, 7),
        ("Pad(x, amounts)", 14, 7),  # 18 adds an input
        ("Pad(x, amounts, zero, axes)", 18, 8),  # which this one has
        ("ReduceMean(x, axes)", 18, 8),  # axes became an input in 18
        ("LayerNormalization(x, gamma)", 17, 8),  # did not exist before
    ],
)
def test_the_opset_is_the_lowest_in_which_every_operator_means_the_same(
    operator, opset, ir_version
):
    model = ir.from_proto(onnx.parser.parse_model(OPERATORS.format(operator=operator)))
    LowestOpset()(model)
    assert model.opset_imports[""] == opset
    assert model.ir_version == ir_version
    onnx.checker.check_model(ir.to_proto(model))


def test_operators_of_other_domains_are_refused():
    model = ir.from_proto(onnx.parser.parse_model(OPERATORS.format(operator="Relu(x)")))
    model.graph[0].domain = "com.microsoft"
    with pytest.raises(ExportError, match="not an operator of ONNX's own domain"):
        LowestOpset()(model)


@pytest.mark.ci
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_constants_are_named_after_their_layers(precision, exported_to):
    graph = onnx.load(exported_to("onnx", "v3-small", 32, precision=precision).path).graph
    network = networks.folded("v3-small", 32, short=True).module
    layers = {
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear)
    }
    assert {n.name for n in graph.node if n.op_type in ("Conv", "Gemm")} == layers
    constants = {tensor.name for tensor in graph.initializer}
    assert {f"{layer}.weight" for layer in layers} <= constants
    biases = {name for name in constants if name.endswith(".bias")}
    assert biases <= {f"{layer}.bias" for layer in layers}  # without those that are zero
    assert len(biases) > 5
    assert not any(name.startswith("_frozen_param") for name in constants)
    if precision == "int8":
        assert {f"{layer}.weight.scale" for layer in layers} <= constants


def test_equal_weights_stay_apart():
    """The exporter stores equal constants once; ONNX Runtime changes them in place."""
    model = ir.from_proto(onnx.parser.parse_model(SHARED))
    for index, node in enumerate(node for node in model.graph if node.op_type == "Conv"):
        node.metadata_props["pkg.torch.onnx.name_scopes"] = f"['', 'features.{index}', 'conv']"
    NameLayers()(model)
    NameConstants()(model)
    assert set(model.graph.initializers) == {
        *("s", "z", "features.0.weight", "features.0.weight.scale", "features.0.weight.zero_point"),
        *("features.1.weight", "features.1.weight.scale", "features.1.weight.zero_point"),
    }
    before, after = (
        onnxruntime.InferenceSession(proto.SerializeToString()).run(
            None, {"x": np.ones((1, 1, 2, 2), np.float32)}
        )[0]
        for proto in (onnx.parser.parse_model(SHARED), ir.to_proto(model))
    )
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_the_file_says_who_made_it_and_what_it_needs(precision, exported_to):
    model = onnx.load(exported_to("onnx", "v2", 32, precision=precision).path)
    assert model.producer_name == "mobiledeploy"
    assert model.producer_version == version("mobiledeploy")
    assert model.doc_string.startswith(model.graph.name)
    assert precision in model.doc_string
    assert (model.ir_version, model.opset_import[0].version) == (7, 14)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["mobiledeploy.versions"]) == {
        "opset": 14,
        "ir_version": 7,
        "oldest_onnxruntime": "1.8",
    }
    assert not model.graph.value_info


@pytest.mark.ci
@pytest.mark.parametrize("style", ["Fixed", "Runtime"])
def test_the_file_converts_to_the_ort_format(style, exported_to, tmp_path):
    artifact = exported_to("onnx", "v3-small", 32)
    command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort"]
    options = ["--output_dir", tmp_path, "--optimization_style", style]
    subprocess.run([*command, artifact.path, *options], check=True)
    ending = ".with_runtime_opt.ort" if style == "Runtime" else ".ort"
    (converted,) = tmp_path.glob(f"{artifact.path.stem}{ending}")
    images = networks.pixels(32, seed=1)
    reference = IntegerReference(networks.quantized("v3-small", 32, short=True))
    (found,) = onnxruntime.InferenceSession(converted).run(None, {"input": images})
    assert np.array_equal(found, reference.run({"input": images})["logits"])
