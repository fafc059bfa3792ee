"""Int8 logits on ARM64 equal the integer reference, bit for bit."""

import functools

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from real_parts import ARM_PROCESSORS

from mobiledeploy.devices.agent_session import decode_outputs
from mobiledeploy.devices.open import open_device
from mobiledeploy.devices.request import Request
from mobiledeploy.export.write import export_onnx
from mobiledeploy.models.spec import FAMILIES
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.open import open_runner

pytestmark = pytest.mark.ci  # under an emulator

RESOLUTION = 32
IMAGES = 24
# sizes in squeeze-and-excitation and before the classifier; the mean of an even count can be a tie
POOLED_SIDES = (2, 3, 4, 6, 8, 14)
CHANNELS = 37


@pytest.fixture(scope="module")
def images():
    return networks.pixels(RESOLUTION, IMAGES, seed=7)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """An int8 ONNX of each family."""
    folder = tmp_path_factory.mktemp("arm64")
    return {
        family: export_onnx(networks.quantized(family), folder / f"{family}.onnx").path
        for family in FAMILIES
    }


@pytest.fixture(scope="module")
def expected(artifacts, images):
    """The logits of the integer reference, which ONNX Runtime on this machine has to match."""
    logits = {}
    for family, path in artifacts.items():
        logits[family] = IntegerReference(networks.quantized(family)).run({"input": images})[
            "logits"
        ]
        with open_runner(path) as runner:
            assert np.array_equal(runner.run({"input": images})["logits"], logits[family])
    return logits


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """Quantized global average pools as the exporter writes them, one file for each side."""
    folder = tmp_path_factory.mktemp("pools")
    return {side: _pool(folder / f"pool{side}.onnx", side) for side in POOLED_SIDES}


@pytest.fixture(scope="module")
def codes():
    """Codes to pool, (N, 37, side, side): 37 is no multiple of any vector width."""
    random = np.random.default_rng(0)
    shapes = [(16, CHANNELS, side, side) for side in POOLED_SIDES]
    return {shape[2]: random.integers(0, 256, shape).astype(np.float32) for shape in shapes}


@pytest.fixture(scope="module")
def computed(arm64, artifacts, images, pools, codes):
    """Run everything on a processor in one session, because starting one is slow."""

    @functools.cache
    def on(processor):
        request = Request(
            task="outputs",
            artifacts=(*artifacts.values(), *pools.values()),
            inputs=((images,) * len(artifacts) + tuple(codes.values())),
        )
        with open_device(arm64(processor)) as device:
            *_, last = device.run_session(request)
            found = [output for (output,) in decode_outputs(last["result"]["outputs"])]
            assert len(found) == len(artifacts) + len(pools)
            logits = dict(zip(artifacts, found, strict=False))
            return device.host, logits, dict(zip(pools, found[len(artifacts) :], strict=True))

    return on


@pytest.mark.parametrize("processor", ARM_PROCESSORS)
def test_int8_logits_are_bit_identical_on_arm64(processor, computed, expected):
    host, found, _ = computed(processor)
    assert (host.architecture, host.features) == ("aarch64", ARM_PROCESSORS[processor])
    compared = {family: logits.size for family, logits in found.items()}
    assert compared == dict.fromkeys(FAMILIES, IMAGES * networks.CLASSES)
    differing = {f: int(np.count_nonzero(found[f] != expected[f])) for f in found}
    assert differing == dict.fromkeys(FAMILIES, 0)
    # all logits being the same would make the comparison meaningless
    assert all(len(np.unique(logits)) > 50 for logits in found.values())


@pytest.mark.parametrize("processor", ARM_PROCESSORS)
def test_pools_round_ties_to_even_on_arm64(processor, computed, codes):
    """ONNX Runtime implements the rounding of this operator separately for each architecture."""
    *_, found = computed(processor)
    for side, values in codes.items():
        mean = values.sum((2, 3), dtype=np.float64) / side**2
        ties = np.count_nonzero(mean % 1 == 0.5)
        assert (ties > 0) == (side % 2 == 0), side
        assert np.array_equal(found[side], np.rint(mean)), f"side {side}, {ties} ties"


def _pool(path, side):
    """Write float codes -> uint8 -> pool -> uint8 -> float, (N, channels)."""
    reading = ["one", "zero"]
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "one", "none"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", *reading], ["read"]),
        helper.make_node("GlobalAveragePool", ["read"], ["mean"]),
        helper.make_node("QuantizeLinear", ["mean", *reading], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("DequantizeLinear", ["flat", "one", "none"], ["logits"]),
    ]
    constants = {"one": np.float32(1), "zero": np.uint8(128), "none": np.uint8(0)}
    graph = helper.make_graph(
        nodes,
        "pool",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", CHANNELS, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", CHANNELS])],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)
    return path
