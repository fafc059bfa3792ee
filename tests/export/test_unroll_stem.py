"""The unrolled stem: whatever the kernel, its outputs are those of the convolution itself."""

import itertools

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.unroll_stem import UnrollStem

ZERO_POINT = 7  # not zero, so that padding with zeros would be seen


def constants(**arrays):
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def nodes_of_stem(name="stem", codes="q", weight="w", groups=1, **attributes):
    """Return a convolution of codes: its input and weight dequantized, its output quantized."""
    return [
        helper.make_node("DequantizeLinear", [codes, "s", "z"], [f"{name}.d"]),
        helper.make_node("DequantizeLinear", [weight, "ws", "wz"], [f"{name}.w"], axis=0),
        helper.make_node(
            *("Conv", [f"{name}.d", f"{name}.w"], [f"{name}.c"]),
            name=name,
            group=groups,
            **attributes,
        ),
        helper.make_node("QuantizeLinear", [f"{name}.c", "ys", "z"], [f"{name}.codes"]),
    ]


def graph(shape, weight, *, extra=(), outputs=("stem.codes",), height=None, **attributes):
    """Return a graph that quantizes an image and convolves it."""
    image = [1, shape[0], height or shape[1], shape[2]]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        *nodes_of_stem(**attributes),
        *extra,
    ]
    made = helper.make_graph(
        nodes,
        "stem",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, image)],
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, [None] * 4)
            for name in outputs
        ],
        constants(
            s=np.float32(0.5),
            z=np.uint8(ZERO_POINT),
            ys=np.float32(40),
            w=weight,
            ws=np.full(len(weight), 0.25, np.float32),
            wz=np.zeros(len(weight), np.int8),
        ),
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def unrolled(model):
    """Return the graph after the pass, and whether it changed."""
    changed = ir.from_proto(model)
    modified = UnrollStem()(changed).modified
    proto = ir.to_proto(changed)
    onnx.checker.check_model(proto, full_check=True)
    return proto, modified


def run(model, shape):
    image = np.random.default_rng(0).normal(0, 40, size=(1, *shape)).astype(np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": image})


def weight_of(outputs, channels, rows, columns):
    generator = np.random.default_rng(1)
    return generator.integers(-127, 128, (outputs, channels, rows, columns)).astype(np.int8)


@pytest.mark.parametrize(
    ("channels", "kernel", "strides", "dilations", "pads", "size"),
    [
        *((3, (3, 3), (2, 2), (1, 1), pads, size) for pads, size in itertools.product(
            [(1, 1, 1, 1), (0, 0, 1, 1), (0, 0, 0, 0), (2, 0, 1, 3)], [(8, 8), (9, 7), (5, 12)]
        )),
        (1, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), (6, 5)),
        (2, (5, 3), (2, 1), (1, 1), (2, 1, 2, 1), (11, 9)),
        (4, (3, 5), (1, 2), (1, 1), (1, 2, 1, 2), (7, 10)),
        (3, (7, 7), (2, 2), (1, 1), (3, 3, 3, 3), (16, 16)),
        (3, (4, 4), (4, 4), (1, 1), (0, 0, 0, 0), (16, 12)),
        (3, (3, 3), (2, 2), (2, 3), (2, 3, 2, 3), (12, 14)),
        (3, (2, 1), (3, 1), (1, 1), (0, 0, 0, 0), (10, 4)),
    ],
)  # fmt: skip
def test_the_outputs_do_not_change(channels, kernel, strides, dilations, pads, size):
    shape = (channels, *size)
    model = graph(
        shape,
        weight_of(8, channels, *kernel),
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
    )
    after, modified = unrolled(model)
    assert modified
    [convolution] = [node for node in after.graph.node if node.op_type == "Conv"]
    attributes = {each.name: helper.get_attribute_value(each) for each in convolution.attribute}
    assert attributes["kernel_shape"] == [1, kernel[1]]
    [weight] = [t for t in after.graph.initializer if t.name == "stem.unrolled"]
    assert weight.dims[1] % 4 == 0
    [expected], [found] = run(model, shape), run(after, shape)
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(found, expected)


KERNEL = {"kernel_shape": (3, 3), "strides": (2, 2), "dilations": (1, 1), "pads": (1, 1, 1, 1)}


def test_two_stems_are_unrolled_one_by_one():
    other = nodes_of_stem("other", weight="w2", **{**KERNEL, "strides": (1, 1)})
    shape = (3, 8, 8)
    model = graph(
        *(shape, weight_of(8, 3, 3, 3)),
        extra=other,
        outputs=("stem.codes", "other.codes"),
        **KERNEL,
    )
    model.graph.initializer.extend(constants(w2=weight_of(8, 3, 3, 3)[::-1].copy()))
    after, modified = unrolled(model)
    assert modified
    assert sum(node.op_type == "Gather" for node in after.graph.node) == 2
    for found, expected in zip(run(after, shape), run(model, shape), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_only_the_image_is_unrolled():
    """A second convolution reads what the first one computes."""
    second = nodes_of_stem("second", codes="stem.codes", weight="w2", **KERNEL)
    shape = (3, 8, 8)
    model = graph(
        *(shape, weight_of(4, 3, 3, 3)), extra=second, outputs=("second.codes",), **KERNEL
    )
    model.graph.initializer.extend(constants(w2=weight_of(4, 4, 3, 3)))
    after, _ = unrolled(model)
    assert sum(node.op_type == "Gather" for node in after.graph.node) == 1
    np.testing.assert_array_equal(run(after, shape)[0], run(model, shape)[0])


@pytest.mark.parametrize(
    ("shape", "weight", "change"),
    [
        pytest.param((3, 8, 8), (6, 1, 3, 3), {"groups": 3}, id="grouped"),
        pytest.param((3, 8, 8), (4, 3, 1, 3), {"kernel_shape": (1, 3)}, id="one-row"),
        pytest.param((8, 8, 8), (4, 8, 3, 3), {}, id="many-channels"),
    ],
)
def test_other_stems_stay_as_they_are(shape, weight, change):
    model = graph(shape, weight_of(*weight), **{**KERNEL, **change})
    assert not unrolled(model)[1]


def test_weights_that_two_stems_share_stay_as_they_are():
    shape = (3, 8, 8)
    model = graph(shape, weight_of(4, 3, 3, 3), **KERNEL)
    again = helper.make_node("Conv", ["stem.d", "stem.w"], ["again.c"], name="again", **KERNEL)
    model.graph.node.append(again)
    model.graph.node.append(
        helper.make_node("QuantizeLinear", ["again.c", "ys", "z"], ["again.codes"])
    )
    assert not unrolled(model)[1]


def test_channels_last_images_stay_as_they_are():
    """Their rows are not planes; ONNX Runtime cancels the Transpose against its own."""
    model = graph((3, 8, 8), weight_of(4, 3, 3, 3), **KERNEL)
    [quantize, *rest] = model.graph.node
    del model.graph.node[:]
    move = helper.make_node("Transpose", ["q0"], ["q"], perm=[0, 3, 1, 2])
    quantize.output[0] = "q0"
    model.graph.node.extend([quantize, move, *rest])
    assert not unrolled(model)[1]


@pytest.mark.parametrize(("amounts", "unrolls"), [("00000100", True), ("00100000", False)])
def test_only_channels_may_be_added_to_the_image(amounts, unrolls):
    """Behind a Pad of rows, the image would be higher than the input."""
    model = graph((3, 8, 8), weight_of(4, 3 + int(amounts[5]), 3, 3), **KERNEL)
    model.graph.initializer.extend(constants(amounts=[int(each) for each in amounts]))
    [quantize, *rest] = model.graph.node
    del model.graph.node[:]
    quantize.output[0] = "q0"
    pad = helper.make_node("Pad", ["q0", "amounts"], ["q"])
    model.graph.node.extend([quantize, pad, *rest])
    after, modified = unrolled(model)
    assert modified == unrolls
    np.testing.assert_array_equal(run(after, (3, 8, 8))[0], run(model, (3, 8, 8))[0])


def test_an_image_of_unknown_height_is_refused():
    model = graph((3, 8, 8), weight_of(4, 3, 3, 3), height="H", **KERNEL)
    changed = ir.from_proto(model)
    with pytest.raises((ExportError, ir.passes.PassError)) as caught:
        UnrollStem()(changed)
    assert "height of the image x is not known" in str(caught.value.__cause__ or caught.value)
