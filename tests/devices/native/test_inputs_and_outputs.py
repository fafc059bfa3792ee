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
from mobiledeploy.devices.agent_session import decode_inputs
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


def joined(outputs):
    """Return all outputs of each sample, one behind the other."""
    return np.concatenate([each.reshape(len(each), -1) for each in outputs], axis=1)


def differing(uri, pairs, **options):
    """Return artifact -> how many of its outputs on a device differ."""
    with open_device(uri, **options) as device:
        return {
            f"{path.parent.name}/{path.name}": int(
                np.count_nonzero(joined(run_artifact(device, path, PIXELS)) != expected)
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


def test_planes_equal_the_reference(native, tmp_path):
    network = networks.quantized_for_pixels("v1", "rgba-u8-nchw")
    planes = np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2))
    (expected,) = IntegerReference(network).run({"input": planes}).values()
    assert len(np.unique(expected, axis=0)) == len(PIXELS)
    paths = (
        export_onnx(network, tmp_path / "planes.onnx").path,
        export_executorch(network, tmp_path / "planes.pte").path,
    )
    with open_device(native, runner="native") as device:
        for path in paths:
            (found,) = run_artifact(device, path, planes)
            assert np.count_nonzero(found != expected) == 0, path.name


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
    [noise] = decode_inputs(last["result"]["inputs"])
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
        (TensorProto.FLOAT, TensorProto.STRING, "returns text; expected numbers, one row per"),
        (TensorProto.FLOAT, TensorProto.BFLOAT16, "returns ONNX's type 16; expected numbers"),
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


def test_rows_of_different_shapes_are_refused(native, tmp_path):
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("Constant", [], ["zero"], value_float=0.0),
            helper.make_node("Reshape", ["flat", "all"], ["line"]),
            helper.make_node("Greater", ["line", "zero"], ["positive"]),
            helper.make_node("Compress", ["flat", "positive"], ["output"], axis=1),
        ],
        "positives",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, "positives"])],
        [helper.make_tensor("all", TensorProto.INT64, [1], [-1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "positives.onnx")
    images = np.ones((2, 3, 4, 4), np.float32)
    images[1, 0] = -1
    with open_device() as here, open_device(native, runner="native") as there:
        for device in (here, there):
            with pytest.raises(ArtifactError, match="returns rows whose shape depends on the im"):
                run_artifact(device, tmp_path / "positives.onnx", images)


SIGNED, UNSIGNED = (tuple(f"{sign}int{bits}" for bits in (8, 16, 32, 64)) for sign in ("", "u"))
TYPES = ("float16", "float32", "float64", "bool", *SIGNED, *UNSIGNED)


def test_outputs_of_every_type_of_numbers_arrive_in_it(native, tmp_path):
    kinds = [helper.np_dtype_to_tensor_dtype(np.dtype(name)) for name in TYPES]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input"], [name], to=kind)
            for name, kind in zip(TYPES, kinds, strict=True)
        ],
        "types",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1, 2, 2])],
        [
            helper.make_tensor_value_info(name, kind, ["n", 1, 2, 2])
            for name, kind in zip(TYPES, kinds, strict=True)
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "types.onnx")
    images = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    with open_device() as here, open_device(native, runner="native") as there:
        for device in (here, there):
            found = run_artifact(device, tmp_path / "types.onnx", images)
            assert tuple(each.dtype.name for each in found) == TYPES
            for each in found:
                assert np.array_equal(each, images.astype(each.dtype))


def test_outputs_of_several_types_arrive_from_a_pte(native, tmp_path):
    class Types(nn.Module):
        def forward(self, x):
            return x > 0, x.to(torch.int64), x.to(torch.int8), 2 * x

    images = torch.arange(-6.0, 6).reshape(1, 3, 2, 2)
    path = tmp_path / "types.pte"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.exir import to_edge

        program = to_edge(torch.export.export(Types(), (images,))).to_executorch()
    path.write_bytes(program.buffer)
    with open_device() as here, open_device(native, runner="native") as there:
        for device in (here, there):
            found = run_artifact(device, path, images.numpy())
            assert [each.dtype.name for each in found] == ["bool", "int64", "int8", "float32"]
            for each, expected in zip(found, Types()(images), strict=True):
                assert np.array_equal(each, expected.numpy())


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """The .onnx and .pte with codes, and with the five largest probabilities."""
    made = []
    for answer in ("codes", "top5"):
        model = build(
            "v1",
            weights="random",
            width=0.25,
            resolution=32,
            num_classes=20,
            activation=answer,
        )
        done = deploy(
            model,
            formats=("onnx", "pte"),
            calibration=load_images(model, None, 8),
            recipe=RECIPES["fast"],
            out=tmp_path_factory.mktemp(answer),
            parity=False,
        )
        made.append(tuple(each.path for each in done.artifacts))
    return made


def require_equal_answers(uri, answers, **options):
    """Raise unless codes, classes and probabilities equal those of this machine, in type too."""
    images = networks.pixels(32, 4, seed=3)
    types = {}
    with open_device() as here, open_device(uri, **options) as there:
        for path in (path for paths in answers for path in paths):
            expected, found = (run_artifact(device, path, images) for device in (here, there))
            types[path.parent.name[:5] + path.suffix] = [each.dtype.name for each in found]
            for one, other in zip(expected, found, strict=True):
                assert one.dtype == other.dtype
                assert len(np.unique(one)) > 5
                if one.dtype == np.float32:  # a softmax, whose last bits differ between processors
                    assert np.abs(one - other).max() < 2e-6
                else:
                    assert np.array_equal(one, other)
    assert types == {
        "codes.onnx": ["uint8"],
        "codes.pte": ["int8"],
        "top50.onnx": ["int64", "float32"],
        "top50.pte": ["int64", "float32"],
    }


def test_codes_and_classes_arrive_in_their_types(native, answers):
    require_equal_answers(native, answers, runner="native")


@pytest.mark.parametrize("processor", ARM_PROCESSORS)
def test_codes_and_classes_are_those_of_this_machine_on_arm64(processor, native_arm64, answers):
    require_equal_answers(native_arm64(processor), answers)


def test_parity_and_bench_take_codes_and_classes(native, answers, tmp_path):
    report = tmp_path / "parity.json"
    device = ["--device", native, "--runner", "native"]
    for paths in answers:
        names = [str(path) for path in paths]
        assert _run(["parity", *names, *device, "--json", str(report)]) == 0
        rungs = [r for r in json.loads(report.read_text())["rungs"] if r["name"] == "device"]
        assert [rung["artifact"] for rung in rungs] == [path.name for path in paths]
        assert all(rung["comparisons"] for rung in rungs)
        assert _run(["bench", *names, *device, "--runs", "3", "--json", str(report)]) == 0
        for measured in json.loads(report.read_text())["measurements"]:
            assert (measured["outputs"]["differing"], measured["outputs"]["values"] > 50) == (
                0,
                True,
            )


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
        negative, means = run_artifact(device, tmp_path / "pair.onnx", images)
    assert np.array_equal(negative, -images)
    assert np.allclose(means, images.mean((2, 3), keepdims=True), atol=1e-6)


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
        doubled, _ = run_artifact(device, path, images.numpy())
    assert np.array_equal(doubled, 2 * images.numpy())
