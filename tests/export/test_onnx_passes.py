"""Single ONNX passes on small graphs: what they change and what they refuse.

`test_exactness` compares the result of all passes with the integer reference.
"""

import networks
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.fold_pads import FoldPads
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


def test_channels_are_padded_for_the_direct_kernels(exported_to, tmp_path):
    """V3-Small at width 0.25 has depthwise convolutions of 8, 24, 40 and 72 channels."""
    stored = onnx.load(exported_to("onnx", "v3-small", 64, short=False).path)
    found = list(weights_of_convolutions(optimized(stored, tmp_path)))
    assert len(found) == 52
    depthwise = [groups for groups, _ in found if groups > 1]
    assert len(depthwise) == 11
    assert all(groups % 16 == 0 for groups in depthwise)
    assert found[0] == (1, (found[0][1][0], 4, 3, 3))


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
        if node.op_type == "DequantizeLinear" and node.input[0] in constants and len(node.input) > 2
    ]
    assert of_weights
    assert all(read.count(name) == 1 for name in of_weights)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(artifact.path, options)
    images = networks.pixels(32, seed=1)
    expected = IntegerReference(model).run({"input": images})["logits"]
    assert np.array_equal(session.run(None, {"input": images})[0], expected)
