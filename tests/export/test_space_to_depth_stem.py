"""The space-to-depth stem: its weight, and its conversion of XNNPACK graphs."""

import copy

import numpy as np
import pytest
import torch

from mobiledeploy.inspect.inspect_artifact import inspect_artifact
from mobiledeploy.utils.quiet import quietly

with quietly():
    from executorch.backends.xnnpack import xnnpack_preprocess
    from executorch.backends.xnnpack.serialization import xnnpack_graph_schema as schema
    from executorch.exir._serialize._named_data_store import NamedDataStore

    from mobiledeploy.export.xnnpack_passes.space_to_depth_stem import (
        convert_stem,
        paired_weight,
        space_to_depth_stems,
    )

INT8, WEIGHT = schema.XNNDatatype.xnn_datatype_qint8, schema.XNNDatatype.xnn_datatype_qcint8
TAPS = np.arange(4 * 3 * 3 * 3, dtype=np.int8).reshape(4, 3, 3, 3)


def value(number, dims, datatype=INT8, constant=0):
    tensor = schema.XNNTensorValue(datatype, len(dims), dims, constant, 0, 0, number)
    return schema.XValue(schema.XNNQuantizedTensorValue(tensor, schema.PerTensorQuant(0.5, 3)))


def node(union):
    return schema.XNode(union, debug_handle=0)


def convolution(**fields):
    names = schema.XNNConv2d.__dataclass_fields__
    usual = {"kernel_height": 3, "kernel_width": 3, "subsampling_height": 2, "groups": 1}
    usual |= {"subsampling_width": 2, "dilation_height": 1, "dilation_width": 1}
    usual |= {"group_input_channels": 3, "group_output_channels": 4}
    usual |= {f"padding_{side}": 1 for side in ("top", "right", "bottom", "left")}
    usual |= {"input1_id": 2, "filter_id": 3, "bias_id": 4, "output_id": 5}
    return schema.XNNConv2d(**(dict.fromkeys(names, 0) | usual | fields))


def stem_of(width=6, out=3, **fields):
    """Return a graph with an image (3, 8, width) and a stem, and its constants."""
    nodes = [
        node(schema.XNNConvert(input_id=0, output_id=1, flags=0)),
        node(schema.XNNStaticTranspose(4, [0, 2, 3, 1], input_id=1, output_id=2, flags=0)),
        node(convolution(**fields)),
    ]
    values = [
        schema.XValue(schema.XNNTensorValue(1, 4, [1, 3, 8, width], 0, 0, 0, 0)),
        value(1, [1, 3, 8, width]),
        value(2, [1, 8, width, 3]),
        value(3, [4, 3, 3, 3], WEIGHT, constant=1),
        value(4, [4], constant=2),
        value(5, [1, 4, out, 4]),
    ]
    store = NamedDataStore()
    store.add_named_data("taps", TAPS.tobytes())
    constants = [schema.ConstantDataOffset(0, 0), schema.ConstantDataOffset(0, 108, "taps")]
    return schema.XNNGraph("0", nodes, values, 2, [0], [5], constants), store


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_the_paired_weight_gives_the_same_sums(kernel, padding):
    torch.manual_seed(0)
    image = torch.randint(-128, 128, (1, 3, 9, 12)).float()
    weight = torch.randint(-128, 128, (4, 3, kernel, kernel)).float()
    paired, before = paired_weight(weight.permute(0, 2, 3, 1).numpy().astype(np.int8), padding)
    channels = image.reshape(1, 3, 9, 6, 2).permute(0, 1, 4, 2, 3).reshape(1, 6, 9, 6)
    after = paired.shape[2] - 1 - before
    channels = torch.nn.functional.pad(channels, (before, after))
    found = torch.nn.functional.conv2d(
        channels, torch.from_numpy(paired).float().permute(0, 3, 1, 2), stride=(2, 1)
    )
    # both pad with zeros on the right
    image = torch.nn.functional.pad(image, (padding, kernel))
    expected = torch.nn.functional.conv2d(image, weight, stride=2)[..., :6]
    assert torch.equal(found, expected)


def test_a_stem_is_converted():
    graph, store = stem_of()
    convert_stem(graph, store)
    convert, planes, transpose, pixels, stem = (n.xnode_union for n in graph.xnodes)
    assert (convert.input_id, convert.output_id, planes.input_id) == (0, 1, 1)
    assert planes.new_shape == [3, 24, 2]
    assert transpose.perm == [1, 0, 2]
    assert (transpose.input_id, transpose.output_id) == (planes.output_id, pixels.input_id)
    assert pixels.new_shape == [1, 8, 3, 6]
    assert pixels.output_id == stem.input1_id == 2
    assert (stem.kernel_height, stem.kernel_width) == (3, 2)
    assert (stem.subsampling_height, stem.subsampling_width) == (2, 1)
    assert (stem.padding_left, stem.padding_right, stem.padding_top) == (1, 0, 1)
    dims = {v.xvalue_union.tensor_value.id_out: v.xvalue_union.tensor_value.dims
            for v in graph.xvalues[1:]}  # fmt: skip
    assert dims[2] == [1, 8, 3, 6]
    assert dims[3] == [4, 3, 2, 6]
    entry = store.pte_data[graph.constant_data[1].named_key]
    assert store.buffers[entry.buffer_index] == paired_weight(TAPS, 1)[0].tobytes()
    assert "taps" not in store.pte_data


def test_a_shared_weight_stays_in_the_store():
    graph, store = stem_of()
    graph.constant_data.append(graph.constant_data[1])
    convert_stem(graph, store)
    assert graph.constant_data[2].named_key == "taps"
    assert "taps" in store.pte_data


def padded(value_=0.0):
    """Return a graph with a padding in front of the stem, as in TensorFlow, and its constants."""
    graph, store = stem_of(padding_left=0, padding_top=0, padding_right=0, padding_bottom=0)
    graph.xvalues += [value(6, [1, 3, 9, 7])]
    graph.xvalues[2] = value(2, [1, 9, 7, 3])
    pad = schema.XNNStaticConstantPad([0, 0, 0, 0], [0, 0, 1, 1], value_, 1, 6, flags=0)
    graph.xnodes.insert(1, node(pad))
    graph.xnodes[2].xnode_union.input_id = 6
    return graph, store


def test_tensorflow_padding_moves_into_the_stem():
    graph, store = padded()
    convert_stem(graph, store)
    kinds = [type(each.xnode_union) for each in graph.xnodes]
    assert schema.XNNStaticConstantPad not in kinds
    assert graph.xnodes[1].xnode_union.input_id == 1
    stem = graph.xnodes[-1].xnode_union
    assert (stem.input1_id, stem.kernel_width) == (2, 2)
    assert (stem.padding_top, stem.padding_bottom) == (0, 1)
    assert (stem.padding_left, stem.padding_right) == (0, 1)


def read_by_another(made, number):
    graph, store = made
    graph.xnodes.append(node(schema.XNNHardswish(input_id=number, output_id=5, flags=0)))
    return graph, store


@pytest.mark.parametrize(
    ("graph", "store"),
    [
        stem_of(subsampling_width=1, out=6),
        stem_of(width=7, out=4),
        stem_of(dilation_width=2),
        stem_of(groups=3),
        stem_of(input1_id=1),
        read_by_another(stem_of(), 1),
        read_by_another(stem_of(), 2),
        read_by_another(padded(), 6),
        read_by_another(padded(), 2),
        padded(value_=1.0),
    ],
    ids=[
        "stride-1",
        "odd-width",
        "dilated",
        "grouped",
        "input-not-the-image",
        "quantized-image-has-two-readers",
        "transposed-image-has-two-readers",
        "padding-has-two-readers",
        "transposed-padding-has-two-readers",
        "padding-not-zero",
    ],
)
def test_other_graphs_are_not_changed(graph, store):
    before = copy.deepcopy((graph, store.pte_data))
    convert_stem(graph, store)
    assert (graph, store.pte_data) == before


def test_executorch_is_restored_afterwards():
    def replaced():
        return xnnpack_preprocess.serialize_xnnpack_binary, xnnpack_preprocess.NamedDataStore

    before = replaced()
    with space_to_depth_stems():
        assert not set(before) & set(replaced())
    with pytest.raises(KeyboardInterrupt), space_to_depth_stems():
        raise KeyboardInterrupt
    assert replaced() == before


@pytest.mark.ci
def test_an_exported_pte_has_the_stem(exported_to):
    (group,) = inspect_artifact(exported_to("pte", "v3-small", 64).path).groups
    counts = {(o.name, o.datatype): o.count for o in group.operators}
    assert counts["XNNStaticReshape", "int8"] >= 2
    assert counts["XNNStaticTranspose", "int8"] == 2
