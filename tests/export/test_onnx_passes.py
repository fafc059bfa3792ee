"""Single passes on graphs made by hand: what they change, and what they refuse.

What all of them make of a network is held to the integer reference in `test_contract`.
"""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.fold_pads import FoldPads

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
    """Return a padding (top 1, left 2, bottom 3) in front of a convolution that pads by itself."""
    text = PADDED.format(amounts=amounts, filler=filler, scale=scale, reader=reader)
    return onnx.parser.parse_model(text)


def test_padding_becomes_the_convolutions_own_and_nothing_else_changes():
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
        ({"amounts": "0,1,0,0,0,0,1,1"}, "height and width alone"),
        ({"amounts": "0,0,0,0,1,0,1,1"}, "height and width alone"),
        ({"filler": "one"}, "add zeros"),
        ({"scale": "other"}, "in front of a convolution"),
        ({"reader": "Relu(d1)"}, "in front of a convolution"),
        ({"reader": "Add(d1, d1)"}, "Expected one reader"),
    ],
)
def test_padding_that_a_convolution_cannot_do_is_refused(change, reason):
    with pytest.raises(ExportError, match=reason):
        FoldPads()(ir.from_proto(graph(**change)))
