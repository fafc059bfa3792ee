"""Inspecting artifacts of other tools, and refusing damaged files."""

import struct
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from mobiledeploy.artifact import flatbuffer
from mobiledeploy.errors import ArtifactError, RuntimeFailedError
from mobiledeploy.inspect import inspect_artifact as inspect_artifact_module
from mobiledeploy.inspect.inspect_artifact import inspect_artifact

METADATA = {"name": "small", "input": {"mean": [0.5, 0.25, 0.125]}}
LABELS = ("tench", "goldfish", "öre")


def operators(group):
    return {(o.name, o.datatype): o.count for o in group.operators}


def parameters_bytes(module, kinds):
    return sum(4 * p.numel() for name, p in module.named_parameters() if name.endswith(kinds))


def test_a_float_onnx(float_onnx, small_module):
    summary = inspect_artifact(float_onnx)
    stored, optimized = summary.groups
    assert operators(stored) == {
        ("Conv", "float32"): 3,
        ("Relu", "float32"): 2,
        ("Add", "float32"): 1,
        ("GlobalAveragePool", "float32"): 1,
        ("Flatten", "float32"): 1,
        ("Gemm", "float32"): 1,
    }
    assert stored.total == 9
    assert stored.int8 == optimized.int8 == 0
    # ONNX Runtime fuses the ReLUs into the convolutions.
    assert not [name for name, _ in operators(optimized) if "Relu" in name]
    assert {datatype for _, datatype in operators(optimized)} == {"float32"}
    assert summary.weights_bytes == {"float32": parameters_bytes(small_module, ("weight", "bias"))}
    assert (summary.opsets, summary.ir_version) == ({"": 21}, 10)
    assert summary.oldest_onnxruntime is None  # nothing was measured for this opset
    assert (summary.metadata, summary.labels) == (METADATA, LABELS)
    assert summary.other_metadata == {}
    (image,), (logits,) = summary.inputs, summary.outputs
    assert (image.name, image.datatype, image.shape) == ("input", "float32", ("batch", 3, 32, 32))
    assert (logits.name, logits.datatype, logits.shape) == ("logits", "float32", ("batch", 10))
    assert image.encoding is logits.encoding is None
    assert summary.size_bytes == float_onnx.stat().st_size
    assert summary.format == "onnx"


def test_an_int8_onnx_shows_the_optimized_graph_too(int8_onnx, small_module):
    summary = inspect_artifact(int8_onnx)
    stored, optimized = summary.groups
    assert operators(stored)["Conv", "float32"] == 3
    assert operators(stored)["QuantizeLinear", "uint8"] == stored.int8 == 8
    counts = operators(optimized)
    convolutions = [n for (name, d), n in counts.items() if "QLinearConv" in name and d == "uint8"]
    assert convolutions == [3]
    assert counts["com.microsoft.QLinearAdd", "uint8"] == 1
    assert counts["com.microsoft.QGemm", "uint8"] == 1
    assert counts["DequantizeLinear", "float32"] == 1
    assert optimized.int8 == optimized.total - 1
    # Biases, and as many zero-points.
    assert summary.weights_bytes["int32"] == 2 * parameters_bytes(small_module, "bias")
    model = onnx.load(int8_onnx)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for tensor, stem in ((*summary.inputs, "input"), (*summary.outputs, "logits")):
        assert tensor.encoding.datatype == "uint8"
        assert tensor.encoding.scale == constants[f"{stem}_scale"]
        assert tensor.encoding.zero_point == constants[f"{stem}_zero_point"]


def test_datatypes_are_found_behind_operators_unknown_to_onnx(tmp_path):
    """Softmax comes after com.microsoft's QLinearConcat, whose first input is a float scale."""
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    zero = numpy_helper.from_array(np.uint8(3), "zero")
    concat = ["scale", "zero", "quantized", "scale", "zero", "quantized", "scale", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["quantized"]),
        helper.make_node("QLinearConcat", concat, ["twice"], domain="com.microsoft", axis=1),
        helper.make_node("Transpose", ["twice"], ["turned"], perm=[0, 1]),
        helper.make_node("DequantizeLinear", ["turned", "scale", "zero"], ["real"]),
        helper.make_node("Gelu", ["real"], ["bent"], domain="com.microsoft"),
        helper.make_node("Neg", ["bent"], ["logits"]),
    ]
    path = save(nodes, [scale, zero], tmp_path, width=4, domains=["com.microsoft"])
    stored = operators(inspect_artifact(path).groups[0])
    assert stored == {
        ("QuantizeLinear", "uint8"): 1,
        ("com.microsoft.QLinearConcat", "uint8"): 1,
        ("Transpose", "uint8"): 1,
        ("DequantizeLinear", "float32"): 1,
        ("com.microsoft.Gelu", "float32"): 1,
        ("Neg", "float32"): 1,
    }


def test_an_input_that_is_read_in_float_too_has_no_encoding(tmp_path):
    scale = numpy_helper.from_array(np.float32(0.1), "scale")
    zero = numpy_helper.from_array(np.int8(3), "zero")
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["rounded"]),
        helper.make_node("Sub", ["input", "rounded"], ["logits"]),
    ]
    summary = inspect_artifact(save(nodes, [scale, zero], tmp_path))
    assert summary.inputs[0].encoding is summary.outputs[0].encoding is None


def test_a_per_channel_input_has_no_encoding(tmp_path):
    scale = numpy_helper.from_array(np.array([0.1, 0.2], np.float32), "scale")
    zero = numpy_helper.from_array(np.array([3, 4], np.int8), "zero")
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["q"], axis=1),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["logits"], axis=1),
    ]
    summary = inspect_artifact(save(nodes, [scale, zero], tmp_path))
    assert summary.inputs[0].encoding is summary.outputs[0].encoding is None


def test_names_and_metadata_of_other_tools_are_shown(tmp_path):
    path = save([helper.make_node("Neg", ["input"], ["logits"])], [], tmp_path)
    model = onnx.load(path)
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"
    helper.set_model_props(model, {"author": "somebody"})
    onnx.save(model, path)
    summary = inspect_artifact(path)
    assert summary.inputs[0].name == "pixels"
    assert summary.other_metadata == {"author": "somebody"}
    assert (summary.metadata, summary.labels) == ({}, ())


def save(nodes, initializers, folder, *, width=2, domains=()):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("input", 1, [1, 2])],
        [helper.make_tensor_value_info("logits", 1, [1, width])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 21), *(helper.make_opsetid(d, 1) for d in domains)]
    path = folder / "made.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


def test_a_float_pte(float_pte, small_module):
    summary = inspect_artifact(float_pte)
    trunk, head, outside = summary.groups
    assert trunk.where == "delegate 0: XnnpackBackend"
    assert operators(trunk) == {
        ("XNNConv2d", "float32"): 2,
        ("XNNDepthwiseConv2d", "float32"): 1,
        ("XNNAdd", "float32"): 1,
        ("XNNStaticTranspose", "float32"): 2,
    }
    assert operators(head) == {("XNNFullyConnected", "float32"): 1}
    assert outside.where.startswith("outside the delegates")
    assert operators(outside) == {("aten::mean.out", "float32"): 1}
    assert summary.backends == ("XnnpackBackend", "XnnpackBackend")
    assert summary.weights_bytes == {"float32": parameters_bytes(small_module, ("weight", "bias"))}
    assert (summary.metadata, summary.labels) == (METADATA, LABELS)
    assert summary.constant_methods == ()
    (image,), (logits,) = summary.inputs, summary.outputs
    assert (image.datatype, image.shape) == ("float32", (1, 3, 32, 32))
    assert (logits.datatype, logits.shape) == ("float32", (1, 10))
    assert image.encoding is logits.encoding is None
    # At least the input and the output of the first delegate exist at the same time.
    assert summary.planned_memory_bytes >= 4 * (3 * 32 * 32 + 8 * 16 * 16)
    assert summary.format == "pte"


def test_a_pte_without_delegates(portable_pte, small_module):
    summary = inspect_artifact(portable_pte)
    (outside,) = summary.groups
    counts = operators(outside)
    assert counts["aten::convolution.out", "float32"] == 3
    assert counts["aten::relu.out", "float32"] == 2
    assert summary.backends == ()
    assert summary.weights_bytes == {"float32": parameters_bytes(small_module, ("weight", "bias"))}


def test_an_int8_pte(int8_pte, small_module):
    summary = inspect_artifact(int8_pte)
    trunk, head, _ = summary.groups
    assert operators(trunk) == {
        ("XNNConv2d", "int8"): 2,
        ("XNNDepthwiseConv2d", "int8"): 1,
        ("XNNAdd", "int8"): 1,
        ("XNNStaticTranspose", "int8"): 2,
        ("XNNConvert", "int8"): 1,
        ("XNNConvert", "float32"): 1,
    }
    assert trunk.int8 == trunk.total - 1
    assert operators(head)["XNNFullyConnected", "int8"] == 1
    channels = 8 + 8 + 8 + 10
    assert summary.weights_bytes == {
        "int8": parameters_bytes(small_module, "weight") // 4,
        "int32": 4 * channels,
        "float32": 2 * 4 * channels,  # scales of the weights and of the biases
    }


def test_input_and_output_encodings_are_exact(int8_pte, int8_program):
    def encodings(kind):
        nodes = [n for n in int8_program.graph.nodes if f".{kind}_per_tensor." in str(n.target)]
        return [(np.float32(node.args[1]), node.args[2]) for node in nodes]

    (image,), (logits,) = inspect_artifact(int8_pte).inputs, inspect_artifact(int8_pte).outputs
    assert image.encoding.datatype == logits.encoding.datatype == "int8"
    assert (image.encoding.scale, image.encoding.zero_point) == encodings("quantize")[0]
    assert (logits.encoding.scale, logits.encoding.zero_point) == encodings("dequantize")[-1]
    # flatc prints six decimals, which would not be exact.
    assert image.encoding.scale != round(image.encoding.scale, 6)


def test_constant_methods_of_other_tools_are_listed(tmp_path):
    path = lower(tmp_path, constants={"get_side": 32, "table": torch.zeros(2, 5)})
    methods = {m.name: (m.datatype, m.shape) for m in inspect_artifact(path).constant_methods}
    assert methods == {"get_side": ("Int", ()), "table": ("float32", (2, 5))}


def lower(folder, *, constants=None, methods=("forward",)):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.exir import to_edge

        program = torch.export.export(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
        edge = to_edge(dict.fromkeys(methods, program), constant_methods=constants)
        path = folder / "made.pte"
        path.write_bytes(edge.to_executorch().buffer)
    return path


def test_a_pte_without_forward_is_refused(tmp_path):
    path = lower(tmp_path, methods=("encode", "decode"))
    with pytest.raises(ArtifactError, match=r"methods \['decode', 'encode'\]; expected 'forward'"):
        inspect_artifact(path)


@pytest.mark.parametrize("name", ["bad.onnx", "bad.pte"])
@pytest.mark.parametrize("content", [b"", b"\0" * 999, b"<html>" * 99], ids=["", "0", "html"])
def test_damaged_files_are_refused(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=name):
        inspect_artifact(path)


def test_a_truncated_pte_is_refused(float_pte, tmp_path):
    path = tmp_path / "short.pte"
    path.write_bytes(float_pte.read_bytes()[:-100])
    with pytest.raises(ArtifactError, match="truncated"):
        inspect_artifact(path)


def test_a_pte_with_random_offsets_is_refused_or_read(float_pte, tmp_path):
    """Replace one word at a time. Some are plain numbers; offsets must not raise other errors."""
    content = float_pte.read_bytes()
    (program_size,) = struct.unpack_from("<Q", content, 16)
    path = tmp_path / "astray.pte"
    refused = 0
    for at in range(40, program_size, 44):
        path.write_bytes(content[:at] + b"\x7f\xff\xff\x7f" + content[at + 4 :])
        try:
            inspect_artifact(path)
        except ArtifactError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("name", ["none.pte", "model.tflite"])
def test_missing_files_and_unknown_formats_are_refused(name, tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"TFL3")
    with pytest.raises(ArtifactError, match=name):
        inspect_artifact(tmp_path / name)


def test_an_executorch_without_flatc_is_reported(monkeypatch):
    monkeypatch.setattr(flatbuffer, "_FLATC", "data/bin/missing")
    with pytest.raises(RuntimeFailedError, match="flatc could not read") as caught:
        flatbuffer.bindings.__wrapped__("schema/program.fbs")
    assert caught.value.remedy


def test_an_executorch_without_the_schema_is_reported():
    with pytest.raises(RuntimeFailedError, match="flatc could not read schema/none"):
        flatbuffer.bindings("schema/none.fbs")


def test_inspecting_a_pte_does_not_import_executorch(float_pte):
    script = (
        "import sys; from pathlib import Path\n"
        "from mobiledeploy.inspect.pte import inspect_pte\n"
        f"before = set(sys.modules); inspect_pte(Path({str(float_pte)!r}))\n"
        "print([m for m in set(sys.modules) - before if m.startswith('executorch')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_failure_of_onnx_type_inference_means_damage(float_onnx, monkeypatch):
    """A bit-flipped model that ONNX Runtime loads may be one that onnx refuses."""

    def infer_shapes(_):
        raise onnx.shape_inference.InferenceError("Inferred elem type differs from existing")

    monkeypatch.setattr(inspect_artifact_module, "call_isolated", lambda call, path: call(path))
    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", infer_shapes)
    with pytest.raises(ArtifactError, match=r"float\.onnx is damaged: Inferred elem type"):
        inspect_artifact(float_onnx)
