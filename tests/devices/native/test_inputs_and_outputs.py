"""Pixels as the input and several outputs, in the native runner: the numbers of this machine."""

import json
import warnings

import networks
import numpy as np
import onnx
import own_networks
import pytest
import torch
from onnx import TensorProto, helper
from real_parts import ARM_PROCESSORS
from torch import nn

from mobiledeploy.bench.measure import measure
from mobiledeploy.cli import _run
from mobiledeploy.devices.agent_session import decode_arrays
from mobiledeploy.devices.open import open_device, run_artifact
from mobiledeploy.devices.request import Request
from mobiledeploy.errors import ArtifactError, RuntimeFailedError
from mobiledeploy.export.write import export_executorch, export_onnx
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.stages import RECIPES
from mobiledeploy.utils.outputs import joined_arrays

pytestmark = pytest.mark.ci  # it compiles the runner and downloads the runtimes

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 4), np.uint8)


@pytest.fixture(scope="module")
def pixels_v1(tmp_path_factory):
    """The int8 .onnx and .pte of a V1 that takes RGBA bytes, and what they have to return."""
    folder = tmp_path_factory.mktemp("pixels")
    network = networks.quantized_for_pixels("v1")
    expected = IntegerReference(network).run({"input": PIXELS})
    onnx_path = export_onnx(network, folder / "pixels.onnx").path
    pte_path = export_executorch(network, folder / "pixels.pte").path
    return (onnx_path, pte_path), joined_arrays(expected)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """The same of a network with three outputs and RGBA bytes, after `deploy`."""
    model = build(
        f"{own_networks.__file__}:Heads",
        weights="random",
        resolution=32,
        input="rgba-u8",
    )
    done = deploy(
        model,
        formats=("onnx", "pte"),
        calibration=load_images(model, None, 8),
        recipe=RECIPES["fast"],
        out=tmp_path_factory.mktemp("heads"),
        parity=False,
    )
    expected = IntegerReference(done.model).run({"input": PIXELS})
    assert {name: each.shape[1:] for name, each in expected.items()} == {
        "kind": (7,),
        "places": (5, 16, 16),
        "age": (1,),
    }
    return tuple(each.path for each in done.artifacts), joined_arrays(expected)


def differing(uri, pairs, **options):
    """Return artifact -> how many of its outputs on a device differ."""
    with open_device(uri, **options) as device:
        return {
            f"{path.parent.name}/{path.name}": int(
                np.count_nonzero(run_artifact(device, path, PIXELS) != expected)
            )
            for paths, expected in pairs
            for path in paths
        }


def test_bytes_and_several_outputs_equal_the_reference(native, pixels_v1, heads):
    found = differing(native, (pixels_v1, heads), runner="native")
    assert found == dict.fromkeys(found, 0)
    assert len(found) == 4
    for _, expected in (pixels_v1, heads):
        assert len(np.unique(expected, axis=0)) == len(PIXELS)


@pytest.mark.parametrize("processor", ARM_PROCESSORS)
def test_they_are_bit_identical_on_arm64(processor, native_arm64, pixels_v1, heads):
    found = differing(native_arm64(processor), (pixels_v1, heads))
    assert found == dict.fromkeys(found, 0)
    assert len(found) == 4


def test_measure_compares_all_outputs(native, pixels_v1, heads):
    with open_device(native, runner="native") as device:
        for paths, expected in (pixels_v1, heads):
            for each in measure(paths, device=device, runs=3, warmup=1):
                assert each.outputs.values == 4 * 2 * expected.shape[1]  # sessions, images
                assert each.outputs.differing == 0


def test_parity_on_a_device_covers_every_output(native, heads, tmp_path):
    paths, expected = heads
    report = tmp_path / "parity.json"
    argv = ["parity", *map(str, paths), "--device", native, "--runner", "native"]
    assert _run([*argv, "--json", str(report)]) == 0
    rungs = [r for r in json.loads(report.read_text())["rungs"] if r["name"] == "device"]
    assert [rung["artifact"] for rung in rungs] == [path.name for path in paths]
    for rung in rungs:
        [metrics] = [c["metrics"] for c in rung["comparisons"] if c["reference"] == "integers"]
        assert metrics["differing_logits"] == 0
        assert metrics["logits"] % expected.shape[1] == 0


def test_noise_for_pixels_has_every_byte(native, pixels_v1):
    (path, _), _ = pixels_v1
    with open_device(native, runner="native") as device:
        *_, last = device.run_session(Request(task="outputs", artifacts=(path,), inputs=(None,)))
    [noise] = decode_arrays(last["result"]["inputs"])
    assert (noise.dtype, noise.shape) == (np.uint8, (2, 32, 32, 4))
    assert len(np.unique(noise)) == 256


def test_samples_of_another_type_are_refused(native, pixels_v1, int8_onnx):
    (path, _), _ = pixels_v1
    with open_device(native, runner="native") as device:
        with pytest.raises(RuntimeFailedError, match="takes uint8 samples; it was given float32"):
            run_artifact(device, path, PIXELS.astype(np.float32))
        with pytest.raises(RuntimeFailedError, match="takes float32 samples; it was given uint8"):
            run_artifact(device, int8_onnx, np.zeros((1, 3, 32, 32), np.uint8))
        with pytest.raises(RuntimeFailedError, match=r"not a \.npy file of float32 or uint8"):
            run_artifact(device, path, PIXELS.astype(np.float64))


@pytest.mark.parametrize(
    ("input_type", "output_type", "message"),
    [
        (TensorProto.INT64, TensorProto.FLOAT, "takes neither float32 images nor uint8 pixels"),
        (TensorProto.FLOAT, TensorProto.INT64, "does not return float32 rows"),
    ],
)
def test_other_types_are_refused(input_type, output_type, message, native, tmp_path):
    graph = helper.make_graph(
        [helper.make_node("Cast", ["input"], ["output"], to=output_type)],
        "cast",
        [helper.make_tensor_value_info("input", input_type, ["n", 3, 4, 4])],
        [helper.make_tensor_value_info("output", output_type, ["n", 3, 4, 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "cast.onnx")
    with (
        open_device(native, runner="native") as device,
        pytest.raises(ArtifactError, match=message),
    ):
        run(device, tmp_path / "cast.onnx")


def run(device, path):
    *_, last = device.run_session(Request(task="outputs", artifacts=(path,), inputs=(None,)))
    return last["result"]


@pytest.mark.parametrize("batch", [1, 2, "n"])
def test_outputs_of_a_batch_are_joined_sample_by_sample(batch, native, tmp_path):
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["input"], ["map"]),
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        ],
        "pair",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 4, 4])],
        [
            helper.make_tensor_value_info("map", TensorProto.FLOAT, [batch, 3, 4, 4]),
            helper.make_tensor_value_info("mean", TensorProto.FLOAT, [batch, 3, 1, 1]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "pair.onnx")
    images = np.random.default_rng(0).normal(size=(4, 3, 4, 4)).astype(np.float32)
    with open_device(native, runner="native") as device:
        found = run_artifact(device, tmp_path / "pair.onnx", images)
    assert np.array_equal(found[:, :48], -images.reshape(4, 48))
    assert np.allclose(found[:, 48:], images.mean((2, 3)), atol=1e-6)


def test_an_output_with_the_channels_last_in_memory_is_read_by_its_indices(native, tmp_path):
    class Last(nn.Module):
        def forward(self, x):
            return (2 * x).to(memory_format=torch.channels_last), x.mean([2, 3])

    images = torch.randn(1, 3, 4, 5)
    path = tmp_path / "last.pte"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.exir import to_edge

        program = to_edge(torch.export.export(Last(), (images,))).to_executorch()
    path.write_bytes(program.buffer)
    with open_device(native, runner="native") as device:
        found = run_artifact(device, path, images.numpy())
    assert np.array_equal(found[:, :60], 2 * images.numpy().reshape(1, 60))
