"""Pixels as the input: every format equals the integer reference, without a float operator."""

import networks
import numpy as np
import onnx
import pytest

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.data.pixels import artifact_inputs
from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.export.write import export
from mobiledeploy.inspect.inspect_artifact import inspect_artifact
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.onnxruntime import save_optimized
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import Encoding


def frames(model, count=7):
    """Return noise with every pixel value, and images."""
    image = model.info.input
    noise = np.random.default_rng(0).integers(0, 256, (4, *image.artifact_shape), np.uint8)
    images = networks.pixels(image.size, count=count - 4, seed=1)
    return np.concatenate([noise, artifact_inputs(images, image)])


def exported(model, file_format, tmp_path):
    return export(model, Format(file_format), tmp_path / f"{model.info.name}.{file_format}").path


def run(path, pixels, **options):
    with open_runner(path, **options) as runner:
        assert runner.input_type == "uint8"
        assert runner.input_shape == pixels.shape[1:]
        return runner.run({"input": pixels})["logits"]


@pytest.mark.ci
@pytest.mark.parametrize(
    ("family", "format_", "size", "options"),
    [
        ("v2", "rgba-u8", 32, {}),
        ("v2", "rgba-u8-nchw", 32, {}),
        pytest.param("v1", "rgb-u8-nchw", (64, 32), {"padding": "same"}, marks=pytest.mark.ci),
        pytest.param("v1", "rgb-u8", (64, 32), {"padding": "same"}, marks=pytest.mark.ci),
        pytest.param("v3-small", "bgra-u8", 32, {"padding": "same"}, marks=pytest.mark.ci),
        pytest.param("v4-conv-small", "rgba-u8", 32, {}, marks=pytest.mark.ci),
        pytest.param("v4-conv-small", "bgra-u8-nchw", 32, {}, marks=pytest.mark.ci),
        # a stem that does not read pairs of pixels
        pytest.param("v2", "rgba-u8", 32, {"stem_stride": 1}, marks=pytest.mark.ci),
    ],
)
def test_all_formats_equal_the_reference(tmp_path, family, format_, size, options):
    model = networks.quantized_for_pixels(family, format_, size, **options)
    pixels = frames(model)
    expected = IntegerReference(model).run({"input": pixels})["logits"]
    assert len(np.unique(expected, axis=0)) == len(pixels)
    for file_format in ("onnx", "pte", "tflite"):
        path = exported(model, file_format, tmp_path)
        assert np.count_nonzero(run(path, pixels) != expected) == 0, file_format
        if file_format == "onnx":
            unoptimized = run(path, pixels, optimize=False)
            assert np.count_nonzero(unoptimized != expected) == 0
            assert np.count_nonzero(run(path, pixels[:1]) != expected[:1]) == 0


def test_pixels_are_the_codes():
    model = networks.quantized_for_pixels("v2")
    assert next(iter(model.encodings.values())) == Encoding(scale=1.0, zero_point=-128)
    reference = IntegerReference(model)
    pixels = frames(model)
    codes = next(iter(reference.layers(pixels).values()))
    np.testing.assert_array_equal(codes.codes, pixels.transpose(0, 3, 1, 2).astype(int) - 128)
    assert codes.half_way.min() == 0.5


@pytest.mark.parametrize("format_", ["rgba-u8", "rgba-u8-nchw"])
def test_onnx_runtime_computes_nothing_but_integers_before_the_output(tmp_path, format_):
    path = exported(networks.quantized_for_pixels("v2", format_), "onnx", tmp_path)
    save_optimized(path, tmp_path / "optimized.onnx")
    nodes = onnx.load(tmp_path / "optimized.onnx").graph.node
    # ONNX Runtime's own transpose cancels that of the file; the rows of planes become channels
    assert nodes[0].op_type == ("Pad" if format_.endswith("nchw") else "QLinearConv")
    assert nodes[0].input[0] == "input"
    kinds = [node.op_type for node in nodes]
    assert "QuantizeLinear" not in kinds
    assert kinds.count("DequantizeLinear") == 1
    assert kinds[-1] == "DequantizeLinear"


@pytest.mark.ci
@pytest.mark.parametrize(
    ("format_", "shape", "transposes"),
    [
        ("rgba-u8", (1, 32, 32, 4), 1),  # of the pooled features
        ("rgba-u8-nchw", (1, 4, 32, 32), 2),
        ("rgb-u8-nchw", (1, 3, 32, 32), 2),
    ],
)
def test_a_pte_reads_pixels_inside_the_delegate(tmp_path, format_, shape, transposes):
    path = exported(networks.quantized_for_pixels("v2", format_), "pte", tmp_path)
    summary = inspect_artifact(path)
    (delegate,) = summary.groups
    counts = {(each.name, each.datatype): each.count for each in delegate.operators}
    assert counts["XNNConvert", "int8"] == 1
    assert counts["XNNConvert", "float32"] == 1  # of the logits
    assert counts["XNNStaticTranspose", "int8"] == transposes
    assert summary.inputs[0].datatype == "uint8"
    assert summary.inputs[0].shape == shape


@pytest.mark.ci
@pytest.mark.parametrize("format_", ["rgba-u8", "bgra-u8", "rgb-u8"])
@pytest.mark.parametrize("file_format", ["onnx", "pte", "tflite"])
def test_both_layouts_give_the_same_codes(tmp_path, format_, file_format):
    names = (format_, f"{format_}-nchw")
    model, other = (networks.quantized_for_pixels("v1", name) for name in names)
    pixels = frames(model)
    planes = pixels.transpose(0, 3, 1, 2)
    expected = run(exported(model, file_format, tmp_path), pixels)
    found = run(exported(other, file_format, tmp_path), planes)
    assert len(np.unique(expected, axis=0)) == len(pixels)
    assert np.count_nonzero(found != expected) == 0


@pytest.mark.parametrize("file_format", ["onnx", "pte", "tflite"])
def test_normalised_images_are_refused(tmp_path, file_format):
    path = exported(networks.quantized_for_pixels("v2"), file_format, tmp_path)
    with open_runner(path) as runner:
        with pytest.raises(RuntimeFailedError, match="takes uint8; it was given float32"):
            runner.run({"input": networks.pixels(32, count=1)})
        with pytest.raises(RuntimeFailedError, match=r"takes \(N, 32, 32, 4\)"):
            runner.run({"input": np.zeros((1, 4, 32, 32), np.uint8)})
