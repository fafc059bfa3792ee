"""Exactness: every format computes the logits of the integer reference, bit for bit."""

import networks
import numpy as np
import onnx
import pytest
import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.inspect.inspect_artifact import inspect_artifact
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.onnxruntime import save_optimized
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.utils.quiet import quietly


def run(artifact, images, **options):
    with open_runner(artifact.path, **options) as runner:
        return runner.run({"input": images})["logits"]


def reference_logits(model, images):
    logits = IntegerReference(model).run({"input": images})["logits"]
    # constant logits would agree trivially
    assert len(np.unique(logits, axis=0)) == len(images)
    return logits


@pytest.mark.ci
@pytest.mark.parametrize(
    ("family", "resolution", "short"),
    [
        pytest.param("v1", 32, False, marks=pytest.mark.ci),
        ("v2", 32, False),
        pytest.param("v3-small", 64, False, marks=pytest.mark.ci),
        ("v1", 64, True),
        ("v2", 64, True),
        ("v4-conv-small", 64, True),
    ],
)
def test_onnx_runtime_equals_the_integer_reference_in_any_batch(
    exported_to, family, resolution, short
):
    images = networks.pixels(resolution, count=7, seed=1)
    expected = reference_logits(networks.quantized(family, resolution, short=short), images)
    artifact = exported_to("onnx", family, resolution, short=short)
    assert np.count_nonzero(run(artifact, images) != expected) == 0
    assert np.count_nonzero(run(artifact, images[:3]) != expected[:3]) == 0
    one_by_one = np.concatenate([run(artifact, image[None]) for image in images])
    assert np.count_nonzero(one_by_one != expected) == 0


@pytest.mark.parametrize(
    ("family", "resolution"),
    [
        pytest.param("v1", 56, id="v1-pool-7x7", marks=pytest.mark.ci),
        pytest.param("v2", 56, id="v2-pool-7x7", marks=pytest.mark.ci),
        pytest.param("v2", 32, id="v2-pool-4x4"),
        pytest.param("v4-conv-small", 32, id="v4"),
    ],
)
def test_onnx_and_pte_equal_the_reference(exported_to, family, resolution):
    images = networks.pixels(resolution, count=7, seed=1)
    expected = reference_logits(networks.quantized(family, resolution, short=True), images)
    for format_ in ("onnx", "pte"):
        found = run(exported_to(format_, family, resolution), images)
        assert np.count_nonzero(found != expected) == 0, format_


@pytest.mark.ci
@pytest.mark.parametrize("family", ["v1", pytest.param("v3-small", marks=pytest.mark.ci)])
def test_tensorflow_padding_is_exact_and_costs_no_operator(exported_to, tmp_path, family):
    images = networks.pixels(32, count=7, seed=1)
    model = networks.quantized(family, short=True, padding="same")
    pads = model.program.graph.find_nodes(op="call_function", target=torch.ops.aten.pad.default)
    assert len(pads) == {"v1": 3, "v3-small": 2}[family]  # one for each stride of 2
    assert {tuple(node.args[1]) for node in pads} == {(0, 1, 0, 1)}  # right and bottom
    expected = reference_logits(model, images)
    artifacts = {f: exported_to(f, family, padding="same") for f in ("onnx", "pte")}
    for artifact in artifacts.values():
        assert np.count_nonzero(run(artifact, images) != expected) == 0, artifact.path
    save_optimized(artifacts["onnx"].path, tmp_path / "optimized.onnx")
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    kinds = {node.op_type for node in nodes}
    assert "QLinearConv" in kinds
    assert not {"Conv", "FusedConv"} & kinds
    pads_left = [node.name for node in nodes if node.op_type == "Pad"]
    assert pads_left == ["features.0.0.pad"]  # of rows of the image, which the stem always has
    (delegate,) = inspect_artifact(artifacts["pte"].path).groups
    counts = {each.name: (each.datatype, each.count) for each in delegate.operators}
    stems = 1  # the space-to-depth stem absorbs its padding
    assert counts["XNNStaticConstantPad"] == ("int8", len(pads) - stems)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("family", "resolution", "options"),
    [
        pytest.param("v2", 32, {"classes": 0}, id="even-pool-last", marks=pytest.mark.ci),
        pytest.param("v2", 56, {"classes": 0}, id="odd-pool-last", marks=pytest.mark.ci),
        pytest.param("v3-small", 32, {"classes": 0}, id="hard-swish-last"),
        pytest.param(
            *("v1", 32, {"kernels_per_layer": 2, "activation": "relu"}),
            id="two-filters",
            marks=pytest.mark.ci,
        ),
        pytest.param("v3-small", 64, {"dilated": True}, id="dilated", marks=pytest.mark.ci),
        pytest.param("v2", 32, {"norm": "none"}, id="no-norm", marks=pytest.mark.ci),
    ],
)
def test_architecture_variants_are_exact(exported_to, family, resolution, options):
    images = networks.pixels(resolution, count=7, seed=1)
    model = networks.quantized(family, resolution, short=True, **options)
    expected = reference_logits(model, images)
    for format_ in ("onnx", "pte"):
        found = run(exported_to(format_, family, resolution, **options), images)
        assert np.count_nonzero(found != expected) == 0, format_


@pytest.mark.ci
@pytest.mark.parametrize("family", ["v1", "v2"])
def test_complete_networks_are_exact_as_pte(exported_to, family):
    images = networks.pixels(32, count=7, seed=1)
    expected = reference_logits(networks.quantized(family, 32), images)
    assert (
        np.count_nonzero(run(exported_to("pte", family, 32, short=False), images) != expected) == 0
    )


@pytest.mark.ci
def test_onnx_runtime_runs_v2_in_integers(exported_to, tmp_path):
    saved = tmp_path / "optimized.onnx"
    save_optimized(exported_to("onnx", "v2", short=False).path, saved)
    kinds = [node.op_type for node in onnx.load(saved).graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1
    assert set(kinds) - {"QuantizeLinear", "DequantizeLinear"} == {
        "QLinearConv",
        "QLinearAdd",
        "QLinearGlobalAveragePool",
        "Flatten",
        "QGemm",
        "Clip",  # of codes: the stem's ReLU6, which feeds a residual connection at this width
        *("Pad", "Gather", "Reshape"),  # of codes: the rows of the image under the stem's kernel
        "Transpose",  # of codes: ONNX Runtime chooses channels-last
    }
    assert kinds.count("QLinearConv") == 52
    assert kinds.count("QLinearAdd") == 11  # at width 0.25 one more block keeps its 8 channels


@pytest.mark.ci
def test_onnx_runtime_runs_v3_in_integers(exported_to, tmp_path):
    saved = tmp_path / "optimized.onnx"
    save_optimized(exported_to("onnx", "v3-small", 64, short=False).path, saved)
    graph = onnx.load(saved).graph
    kinds = [node.op_type for node in graph.node]
    assert kinds.count("QuantizeLinear") == kinds.count("DequantizeLinear") == 1
    assert not {"Conv", "FusedConv", "Gemm", "Mul", "Add", "HardSwish", "HardSigmoid"} & set(kinds)
    assert kinds.count("QLinearMul") > 20  # 19 hard-swishes and 9 squeeze-and-excitations


@pytest.mark.ci
@pytest.mark.parametrize(("family", "resolution"), [("v1", 32), ("v2", 32), ("v3-small", 64)])
def test_the_unoptimized_graph_gives_the_same_bits(exported_to, family, resolution):
    images = networks.pixels(resolution, count=7, seed=1)
    artifact = exported_to("onnx", family, resolution)
    fused, as_written = run(artifact, images), run(artifact, images, optimize=False)
    np.testing.assert_array_equal(fused, as_written)


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_a_pte_is_one_xnnpack_delegate(exported_to, precision):
    summary = inspect_artifact(exported_to("pte", "v2", precision=precision).path)
    inside = [group for group in summary.groups if "XnnpackBackend" in group.where]
    assert len(inside) == 1, summary.groups
    assert inside[0].total > 10
    assert sum(group.total for group in summary.groups) == inside[0].total


@pytest.mark.parametrize("format_", ["onnx", "pte"])
def test_a_float_artifact_differs_from_pytorch_by_rounding_only(exported_to, format_):
    images = networks.pixels(32, count=7, seed=1)
    with torch.no_grad():
        expected = networks.folded("v2", short=True).module(torch.from_numpy(images)).numpy()
    found = run(exported_to(format_, "v2", precision="fp32"), images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_an_operator_outside_the_delegate_is_refused():
    with quietly():
        from mobiledeploy.export import executorch as lowering

    class WithErf(torch.nn.Module):
        def forward(self, x):
            return torch.erf(torch.relu(x))

    program = torch.export.export(WithErf().eval(), (torch.zeros(1, 3, 8, 8),))
    with pytest.raises(ExportError, match=r"found 1 delegates and, outside: .*erf"):
        lowering.encode(program, {})


@pytest.mark.ci
def test_a_head_of_several_layers_is_exact_in_both_formats(exported_to):
    options = {"classes": 5, "head": "batchnorm,linear:16,batchnorm,relu,linear:5"}
    images = networks.pixels(32, count=7, seed=1)
    expected = reference_logits(networks.quantized("v2", short=True, **options), images)
    for format_ in ("onnx", "pte"):
        found = run(exported_to(format_, "v2", **options), images)
        assert np.count_nonzero(found != expected) == 0, format_


@pytest.mark.ci
@pytest.mark.parametrize("family", ["v2", pytest.param("v3-small", marks=pytest.mark.ci)])
def test_an_input_that_is_not_square_is_exact_in_both_formats(exported_to, family):
    images = np.ascontiguousarray(networks.pixels(64, count=7, seed=1)[..., :32])
    model = networks.quantized(family, (64, 32), short=True)
    expected = reference_logits(model, images)
    for format_ in ("onnx", "pte"):
        artifact = exported_to(format_, family, (64, 32))
        assert np.count_nonzero(run(artifact, images) != expected) == 0, format_
    with open_runner(artifact.path) as runner:
        assert runner.metadata["input"]["center_crop"] == [64, 32]
        assert runner.metadata["input"]["resize_to_cover"] == [73, 37]


@pytest.mark.ci
def test_v3_with_a_sigmoid_gate_is_exact_and_int8_in_both_formats(exported_to):
    images = networks.pixels(32, count=7, seed=1)
    model = networks.quantized("v3-small", short=True, se_gate="sigmoid")
    expected = reference_logits(model, images)
    for format_ in ("onnx", "pte"):
        artifact = exported_to(format_, "v3-small", se_gate="sigmoid")
        assert np.count_nonzero(run(artifact, images) != expected) == 0, format_
        assert artifact.coverage.elements_share == 1
