"""The native runner on this machine: the same results as the Python agent, and its errors."""

import numpy as np
import pytest

from mobiledeploy.bench.measure import measure
from mobiledeploy.bench.profile import profile
from mobiledeploy.devices.agent_session import decode_inputs, decode_outputs
from mobiledeploy.devices.open import open_device, run_artifact
from mobiledeploy.devices.request import Request
from mobiledeploy.errors import ArtifactError, RuntimeFailedError, UsageError

pytestmark = pytest.mark.ci  # it compiles the runner and downloads the runtimes


@pytest.fixture
def device(native):
    with open_device(native, runner="native") as opened:
        yield opened


@pytest.fixture
def both(int8_onnx, int8_pte):
    return int8_onnx, int8_pte


def run(device, **fields):
    *_, last = device.run_session(Request(**fields))
    return last["result"]


def test_the_host_is_the_one_that_python_reports(device):
    with open_device() as local:
        expected = local.host
    found = device.host
    for name in ("architecture", "model", "cores", "features"):
        assert getattr(found, name) == getattr(expected, name), name
    assert set(found.conditions) == set(expected.conditions)
    assert found.conditions["governor"] == expected.conditions["governor"]
    assert found.python == ""
    assert found.runtimes == {"onnxruntime": "1.32.0", "executorch": "1.5.1"}


@pytest.mark.parametrize(
    "name", ["float_onnx", "int8_onnx", "float_pte", "portable_pte", "int8_pte"]
)
def test_outputs_equal_those_of_the_python_runtimes(name, device, images, request):
    artifact = request.getfixturevalue(name)
    with open_device() as local:
        (expected,) = run_artifact(local, artifact, images)
    (found,) = run_artifact(device, artifact, images)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if name.startswith("int8"):
        assert np.array_equal(found, expected)
    else:  # the runtimes of Python may be of another version
        assert np.allclose(found, expected, atol=1e-5)
    assert len(np.unique(found)) > 10


def test_inputs_in_another_memory_order_are_sent_as_they_are_indexed(device, int8_onnx, images):
    reordered = np.asfortranarray(images)
    assert np.array_equal(
        run_artifact(device, int8_onnx, reordered), run_artifact(device, int8_onnx, images)
    )


def test_noise_is_generated_and_returned_where_no_inputs_were_sent(device, int8_onnx):
    result = run(device, task="outputs", artifacts=(int8_onnx,), inputs=(None,))
    [samples], [logits] = decode_inputs(result["inputs"]), decode_outputs(result["outputs"])
    assert samples.shape == (2, 3, 32, 32)
    assert samples.std() == pytest.approx(1, abs=0.05)
    assert np.array_equal(run_artifact(device, int8_onnx, samples), logits)


def test_measure_times_both_formats_against_one_another(device, both):
    pair = measure(both, device=device, runs=8, warmup=1)
    assert [m.runtime for m in pair] == ["onnxruntime 1.32.0", "executorch 1.5.1"]
    for found in pair:
        assert len(found.times_ms) == 8
        assert min(*found.times_ms, found.load_ms, found.first_ms) > 0
        assert 0 < found.peak_memory_bytes < 1 << 30
        assert found.outputs.differing == 0


@pytest.mark.parametrize("duration_s", [0.3, None])
def test_rounds_and_durations_are_kept(device, both, duration_s):
    result = run(
        device,
        task="bench",
        artifacts=both,
        inputs=(None, None),
        rounds=7,
        warmup=2,
        duration_s=duration_s,
    )
    counts = {len(times) for times in result["times_ms"]}
    assert len(counts) == 1
    [count] = counts
    assert count == 7 if duration_s is None else count > 7
    assert result["outputs"] == [None, None]


def test_threads_do_not_change_integers(device, both, images):
    for artifact in both:
        one, two = (run_artifact(device, artifact, images, threads=n) for n in (1, 2))
        assert np.array_equal(one, two)


def test_profiles_name_every_operator(device, both):
    for artifact in both:
        found = profile(artifact, device=device, runs=3)
        assert len(found.operators) > 3
        assert found.whole_us > 0
        assert all(operator.median_us >= 0 for operator in found.operators)
        assert "conv" in " ".join(operator.kind for operator in found.operators).lower()
        assert ("event tracer" in found.method) == (artifact.suffix == ".pte")


def test_kernels_outside_of_delegates_are_profiled(device, portable_pte):
    found = profile(portable_pte, device=device, runs=3)
    kinds = [operator.kind for operator in found.operators]
    assert "convolution.out" in kinds
    assert found.sum_us > 0
    assert all(operator.median_us > 0 for operator in found.operators)


def test_the_runtimes_leave_nothing_in_the_home_folder(native, both, images, tmp_path):
    (tmp_path / "home").mkdir()
    uri = f"{native} HOME={tmp_path / 'home'} XDG_CACHE_HOME={tmp_path / 'home'}"
    with open_device(uri, runner="native") as device:
        for artifact in both:
            run_artifact(device, artifact, images)
    assert list((tmp_path / "home").rglob("*")) == []


def test_all_runtimes_can_be_loaded_without_an_artifact(device):
    result = run(device, task="load", artifacts=(), inputs=())
    assert result["runtimes"] == ["onnxruntime 1.32.0", "executorch 1.5.1"]


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("damaged.onnx", b"\x08\x08nonsense", ArtifactError, "ONNX Runtime 1.32.0 cannot load"),
        ("empty.onnx", b"", ArtifactError, "ONNX Runtime 1.32.0 cannot load"),
        ("damaged.pte", b"nonsense" * 20, ArtifactError, "executorch 1.5.1 cannot load"),
        (
            "net.tflite",
            b"nonsense",
            UsageError,
            "is a .tflite file, which the native runner cannot",
        ),
    ],
)
def test_artifacts_that_cannot_run_are_errors(name, content, error, message, device, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=message):
        run(device, task="outputs", artifacts=(tmp_path / name,), inputs=(None,))


@pytest.mark.parametrize("length", [100, 1000, -10])
def test_truncated_programs_are_errors(length, device, int8_pte, tmp_path):
    part = tmp_path / "part.pte"
    part.write_bytes(int8_pte.read_bytes()[:length])
    with pytest.raises((ArtifactError, RuntimeFailedError)):
        run(device, task="outputs", artifacts=(part,), inputs=(None,))


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 1, 32, 32), (0, 3, 32, 32), (2, 3, 32)])
def test_samples_of_another_shape_are_refused(shape, device, both):
    for artifact in both:
        with pytest.raises(RuntimeFailedError, match=r"takes samples of the shape \(3, 32, 32\)"):
            run_artifact(device, artifact, np.zeros(shape, np.float32))
