"""A `.tflite` computes the logits of the integer reference in LiteRT, bit for bit."""

import json

import networks
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mobiledeploy.artifact.tflite_file import metadata_bytes, read_tflite
from mobiledeploy.errors import ArtifactError, ExportError, UsageError
from mobiledeploy.export.tflite import encode_model
from mobiledeploy.export.write import export_tflite
from mobiledeploy.graph.fold_graph import fold_graph
from mobiledeploy.inspect.inspect_artifact import inspect_artifact
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.open import open_runner

FAMILIES = pytest.mark.parametrize(
    ("family", "resolution"), [("v1", 32), ("v2", 32), ("v2", 56), ("v3-small", 64)]
)


def run(path, images, **options):
    with open_runner(path, **options) as runner:
        return runner.run({"input": images})["logits"]


@FAMILIES
@pytest.mark.parametrize("threads", [1, 2])
def test_litert_equals_the_integer_reference(exported_to, family, resolution, threads):
    images = networks.pixels(resolution, count=7, seed=1)
    model = networks.quantized(family, resolution, short=True)
    expected = IntegerReference(model).run({"input": images})["logits"]
    assert len(np.unique(expected, axis=0)) == 7  # constant logits would agree trivially
    artifact = exported_to("tflite", family, resolution)
    np.testing.assert_array_equal(run(artifact.path, images, threads=threads), expected)


@FAMILIES
def test_a_float_network_differs_from_pytorch_by_rounding_only(exported_to, family, resolution):
    images = networks.pixels(resolution, count=3, seed=1)
    with torch.no_grad():
        module = networks.folded(family, resolution, short=True).module
        expected = module(torch.from_numpy(images)).numpy()
    found = run(exported_to("tflite", family, resolution, precision="fp32").path, images)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_tensorflows_padding_is_kept(exported_to):
    images = networks.pixels(32, count=4, seed=2)
    model = networks.quantized("v2", 32, short=True, padding="same")
    expected = IntegerReference(model).run({"input": images})["logits"]
    artifact = exported_to("tflite", "v2", padding="same")
    np.testing.assert_array_equal(run(artifact.path, images), expected)


def test_the_same_network_gives_the_same_bytes():
    model = networks.quantized("v3-small", 64, short=True)
    assert encode_model(model) == encode_model(model)


def test_constants_are_aligned(exported_to):
    """LiteRT maps the file into memory and reads int32 and vectors of int8 in place."""
    data = exported_to("tflite", "v2").path.read_bytes()
    model = read_tflite(exported_to("tflite", "v2").path)
    stored = [bytes(buffer.data) for buffer in model.buffers if buffer.data is not None]
    large = [constant for constant in stored if len(constant) >= 64]
    assert len(large) > 10
    assert all(data.index(constant) % 16 == 0 for constant in large)


def test_the_metadata_says_that_channels_come_last(exported_to):
    model = read_tflite(exported_to("tflite", "v2").path)
    document = json.loads(metadata_bytes(model)["mobiledeploy.metadata"])
    assert document["input"]["layout"] == "NHWC"
    assert document["precision"] == "int8"


def test_inspect_counts_int8_and_encodings(exported_to):
    summary = inspect_artifact(exported_to("tflite", "v3-small", 64).path)
    assert summary.coverage.macs_share == 1.0
    assert summary.coverage.elements_share == 1.0
    program = networks.quantized("v3-small", 64, short=True).program
    assert summary.coverage.macs == sum(
        node.meta["val"].numel() * node.args[1].meta["val"][0].numel()
        for node in program.graph.nodes
        if str(node.target) in ("aten.conv2d.default", "aten.linear.default")
    )
    (image,) = summary.inputs
    assert (image.name, image.datatype, image.shape) == ("input", "float32", (1, 64, 64, 3))
    encoding = networks.quantized("v3-small", 64, short=True).encodings["x"]
    assert (image.encoding.scale, image.encoding.zero_point) == (
        encoding.scale,
        encoding.zero_point,
    )
    (logits,) = summary.outputs
    assert (logits.name, logits.shape) == ("logits", (1, 10))
    assert logits.encoding is not None
    assert summary.labels == networks.LABELS
    names = {operator.name for operator in summary.groups[0].operators}
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MEAN", "MUL", "ADD"} <= names


def test_a_float_artifact_has_no_int8(exported_to):
    summary = inspect_artifact(exported_to("tflite", "v2", precision="fp32").path)
    assert summary.coverage.int8_macs == 0
    assert summary.inputs[0].encoding is None


def test_optimizations_cannot_be_switched_off(exported_to):
    with pytest.raises(UsageError, match="cannot be switched off"):
        open_runner(exported_to("tflite", "v2").path, optimize=False)


@pytest.mark.parametrize("size", [0, 3, 40, 1000, 20_000])
def test_a_truncated_file_is_refused(exported_to, tmp_path, size):
    path = tmp_path / "cut.tflite"
    path.write_bytes(exported_to("tflite", "v2").path.read_bytes()[:size])
    for read in (inspect_artifact, open_runner):
        with pytest.raises(ArtifactError, match=r"damaged|is not a \.tflite|is empty|cannot load"):
            read(path)


class Around(torch.nn.Module):
    """A convolution in front of one operator, and a head behind it."""

    def __init__(self, operator, channels=4):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.operator = operator
        self.head = torch.nn.Linear(channels, 5)

    def forward(self, x):
        return self.head(self.operator(self.conv(x)).mean([2, 3]))


def float_network(operator, channels=4):
    return fold_graph(networks.model_of(Around(operator, channels).eval()))


@pytest.mark.parametrize(
    ("operator", "named"),
    [
        (torch.sin, "aten.sin .* No form of it for LiteRT is known"),
        (lambda x: x + torch.ones(30), "aten.add.Tensor .* one of its operands is a constant"),
        (lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"), "aten.pad.* no padding .* with zeros"),
        (lambda x: F.adaptive_avg_pool2d(x, 7), r"averages to \[7, 7\]"),
        (lambda x: F.max_pool2d(x, 2, dilation=2), "aten.max_pool2d .* dilation or ceil mode"),
        (lambda x: F.max_pool2d(x, 3, ceil_mode=True), "aten.max_pool2d .* dilation or ceil mode"),
        (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), "aten.avg_pool2d .* No form"),
        (torch.nn.Linear(30, 30), r"aten.linear .* shape \(1, 4, 30, 30\)"),
    ],
)
def test_an_operator_that_litert_lacks_is_named(operator, named):
    with pytest.raises(ExportError, match=named) as refused:
        encode_model(float_network(operator))
    assert refused.value.remedy == "Export to ONNX or .pte."


@pytest.mark.parametrize(
    "operator",
    [
        torch.sigmoid,
        F.silu,
        lambda x: F.max_pool2d(x, 3, 2, 1),
        lambda x: F.avg_pool2d(x, 2),
        lambda x: x.clamp(-0.2, 0.3),
        lambda x: F.hardtanh(x, 0.0, 1.0) * x,
        torch.nn.Conv2d(4, 4, 1, groups=2),
        lambda x: torch.cat([x[:, 2:], x[:, :2] + 0.5], 1),
        lambda x: F.channel_shuffle(F.interpolate(x, scale_factor=2), 2),
        lambda x: F.pixel_unshuffle(F.interpolate(x, scale_factor=2, mode="bilinear"), 2)[:, 6:10],
    ],
)
def test_an_operator_in_float_differs_by_rounding_only(operator, tmp_path):
    model = float_network(operator)
    images = networks.pixels(32, count=3, seed=1)
    artifact = export_tflite(model, tmp_path / "net.tflite")
    expected = networks.outputs(model, images)
    np.testing.assert_allclose(
        run(artifact.path, images), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )
