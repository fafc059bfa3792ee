"""The swap of the image's quantization and transposition, on ExecuTorch's own graph classes."""

import pytest

from mobiledeploy.export.inspect import inspect_artifact
from mobiledeploy.quiet import quietly

with quietly():
    from executorch.backends.xnnpack import xnnpack_preprocess
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema

    from mobiledeploy.export.xnnpack_input import image_transposed_in_float, transpose_first

FLOAT, INT8 = schema.XNNDatatype.xnn_datatype_fp32, schema.XNNDatatype.xnn_datatype_qint8


def value(number, dims, datatype=INT8):
    tensor = schema.XNNTensorValue(datatype, len(dims), dims, 0, 0, 0, number)
    if datatype is FLOAT:
        return schema.XValue(tensor)
    return schema.XValue(
        schema.XNNQuantizedTensorValue(tensor, schema.PerTensorQuant(scale=0.5, zero_point=3))
    )


def node(union):
    return schema.XNode(union, debug_handle=0)


def graph(*extra):
    """Return quantize -> transpose, and what else is given."""
    nodes = [
        node(schema.XNNConvert(input_id=0, output_id=1, flags=0)),
        node(schema.XNNStaticTranspose(4, [0, 2, 3, 1], input_id=1, output_id=2, flags=0)),
    ]
    values = [value(0, [1, 3, 8, 6], FLOAT), value(1, [1, 3, 8, 6]), value(2, [1, 8, 6, 3])]
    return schema.XNNGraph("0", [*nodes, *extra], values, 2, [0], [2], [])


def test_the_transposition_comes_first_and_is_of_floats():
    swapped = graph()
    transpose_first(swapped)
    first, second = (n.xnode_union for n in swapped.xnodes)
    assert isinstance(first, schema.XNNStaticTranspose)
    assert isinstance(second, schema.XNNConvert)
    assert (first.input_id, first.output_id) == (0, 1)
    assert (second.input_id, second.output_id) == (1, 2)
    between = swapped.xvalues[1].xvalue_union
    assert between.datatype is FLOAT
    assert between.dims == [1, 8, 6, 3]
    assert swapped.xvalues[2] == graph().xvalues[2]


@pytest.mark.parametrize(
    "other",
    [
        graph(node(schema.XNNHardswish(input_id=1, output_id=3, flags=0))),
        schema.XNNGraph("0", graph().xnodes[:1], graph().xvalues, 2, [0], [1], []),
        schema.XNNGraph("0", graph().xnodes[::-1], graph().xvalues, 2, [0], [2], []),
    ],
    ids=["codes-read-by-another", "no-transposition", "transposition-first"],
)
def test_other_graphs_stay_as_they_are(other):
    before = repr(other)
    transpose_first(other)
    assert repr(other) == before


def test_what_was_replaced_is_put_back():
    before = xnnpack_preprocess.serialize_xnnpack_binary
    with image_transposed_in_float():
        assert xnnpack_preprocess.serialize_xnnpack_binary is not before
    with pytest.raises(KeyboardInterrupt), image_transposed_in_float():
        raise KeyboardInterrupt
    assert xnnpack_preprocess.serialize_xnnpack_binary is before


def test_an_exported_pte_transposes_floats(exported_to):
    summary = inspect_artifact(exported_to("pte", "v3-small", 64).path)
    (group,) = summary.groups
    transposed = [o for o in group.operators if o.name == "XNNStaticTranspose"]
    assert {o.datatype for o in transposed} >= {"float32"}
