"""The native runner under QEMU: int8 logits on ARM64 equal the integer reference, bit for bit."""

import json

import networks
import numpy as np
import pytest
from real_parts import ARM_PROCESSORS

from mobiledeploy.bench.profile import profile
from mobiledeploy.bench.xnnpack_operators import operator_names
from mobiledeploy.cli import _run
from mobiledeploy.devices.agent_session import decode_outputs
from mobiledeploy.devices.open import open_device
from mobiledeploy.devices.request import Request
from mobiledeploy.export.write import export_executorch, export_onnx
from mobiledeploy.quantization.integer_reference import IntegerReference

pytestmark = pytest.mark.ci  # under an emulator

RESOLUTION = 32
IMAGES = 6
FAMILIES = ("v2", "v3-small")  # benchmarks/arm64_instructions.py compares all, at full size


@pytest.fixture(scope="module")
def images():
    return networks.pixels(RESOLUTION, IMAGES, seed=7)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Family -> its int8 .onnx and .pte."""
    folder = tmp_path_factory.mktemp("arm64")
    made = {}
    for family in FAMILIES:
        network = networks.quantized(family)
        onnx = export_onnx(network, folder / f"{family}.onnx").path
        made[family] = (onnx, export_executorch(network, folder / f"{family}.pte").path)
    return made


@pytest.fixture(scope="module")
def expected(images):
    return {
        family: IntegerReference(networks.quantized(family)).run({"input": images})["logits"]
        for family in FAMILIES
    }


@pytest.mark.parametrize("processor", ARM_PROCESSORS)
def test_both_formats_are_bit_identical_on_arm64(
    processor, native_arm64, artifacts, expected, images
):
    paths = [path for pair in artifacts.values() for path in pair]
    request = Request(task="outputs", artifacts=tuple(paths), inputs=(images,) * len(paths))
    with open_device(native_arm64(processor)) as device:
        *_, last = device.run_session(request)
        host = device.host
    assert (host.architecture, host.features) == ("aarch64", ARM_PROCESSORS[processor])
    assert host.emulated
    found = [logits for (logits,) in decode_outputs(last["result"]["outputs"])]
    wanted = [expected[family] for family, pair in artifacts.items() for _ in pair]
    differing = {
        str(path.name): int(np.count_nonzero(logits != expected_logits))
        for path, logits, expected_logits in zip(paths, found, wanted, strict=True)
    }
    assert differing == dict.fromkeys((path.name for path in paths), 0)
    assert all(len(np.unique(logits)) > 30 for logits in found)


def test_profiles_of_both_formats_time_whole_inferences(native_arm64, artifacts):
    with open_device(native_arm64("cortex-a76")) as device:
        for path in artifacts["v2"]:
            found = profile(path, device=device, runs=3)
            slowest = max(found.by_kind, key=lambda kind: kind.total_us)
            assert "conv" in slowest.kind.lower()
            assert 0 < found.sum_us < 20 * found.whole_us
            assert "in whole inferences" in found.method
            if path.suffix == ".pte":
                nodes = [(each.name, each.kind) for each in found.operators]
                assert nodes == list(operator_names(path))


def test_instructions_of_both_formats_are_counted(native_arm64, artifacts, tmp_path, capsys):
    kept = tmp_path / "kept.json"
    pair = [str(path) for path in artifacts["v2"]]
    device = native_arm64("cortex-a76")
    argv = ["bench", *pair, "--count-instructions", "--device", device]
    assert _run([*argv, "--json", str(kept)]) == 0
    counts = [m["instructions"] for m in json.loads(kept.read_text())["measurements"]]
    for numbers in counts:
        assert max(numbers) < 1.01 * min(numbers)
        assert min(numbers) > 100_000
    assert _run([*argv, "--baseline", str(kept), "--max-regress", "1%"]) == 0
    assert "0 of" in capsys.readouterr().out
