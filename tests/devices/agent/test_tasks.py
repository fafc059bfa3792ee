"""The agent's tasks: loading, progress messages, times and outputs."""

import hashlib
import json
import shutil
import sys

import numpy as np
import onnx
import pytest

from mobiledeploy.devices.agent import tasks, timing
from mobiledeploy.devices.agent.errors import AgentError
from mobiledeploy.devices.agent.runtimes import open_runner
from mobiledeploy.devices.agent_session import decode_outputs
from mobiledeploy.devices.open import parse_cores, run_artifact
from mobiledeploy.devices.python_device import LocalDevice
from mobiledeploy.devices.request import Request
from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.runtimes.open import open_runner as open_here


def artifact(path):
    return {"file": path.name, "label": f"my {path.name}", "inputs": None}


def run_bench(paths, **options):
    messages = []
    request = {"threads": 1, "rounds": 3, "warmup": 1, "seed": 0, "duration_s": None} | options
    request["artifacts"] = [artifact(path) for path in paths]
    return tasks.bench(request, str(paths[0].parent), messages.append), messages


def test_bench_times_all_artifacts_and_measures_loading_of_the_first(float_onnx, float_pte):
    result, messages = run_bench([float_pte, float_onnx])
    assert [len(times) for times in result["times_ms"]] == [3, 3]
    assert all(t > 0 for times in result["times_ms"] for t in times)
    fresh = result["fresh"]
    assert fresh["runtime"].startswith("executorch ")
    assert fresh["load_ms"] > 0
    assert fresh["first_ms"] > 0
    assert [m["loading"] for m in messages if "loading" in m] == ["my float.pte", "my float.onnx"]
    assert set(result["conditions"]) == {"before", "after"}
    assert result["outputs"] == [None, None]
    json.dumps(result)


def progress(times_s, **options):
    """Report a round at each of these times; return the shares that were sent."""
    messages = []
    clock = iter([0.0, *times_s])
    report = timing.ProgressReport(messages.append, clock_s=lambda: next(clock), **options)
    for rounds_done in range(len(times_s)):
        report(rounds_done)
    return [message["progress"] for message in messages]


def test_progress_is_the_share_of_rounds():
    assert progress([1, 2, 3, 4, 5], rounds=4, duration_s=None) == [0, 0.25, 0.5, 0.75, 1]


def test_progress_is_sent_at_most_five_times_a_second():
    assert progress([0.1, 0.2, 0.3, 0.45, 0.6], rounds=10, duration_s=None) == [0.1, 0.3]


def test_progress_over_a_duration_is_the_share_of_time():
    assert progress([2, 4, 9], rounds=1, duration_s=8) == [0.25, 0.5, 1]


def test_bench_can_run_for_a_duration(float_onnx):
    result, _ = run_bench([float_onnx], rounds=1, duration_s=0.3)
    assert len(result["times_ms"][0]) > 2


def test_noise_fits_the_input_and_is_reproducible(fixed_batch_onnx, float_onnx):
    for path, batch in ((fixed_batch_onnx, 2), (float_onnx, 1)):
        runner = open_runner(artifact(path), str(path.parent), 1)
        noise = tasks.samples_for(artifact(path), "", runner)
        assert (noise.shape, noise.dtype) == ((2 * batch, 3, 32, 32), np.float32)
        assert 0.9 < noise.std() < 1.1
    digest = hashlib.sha256(noise.tobytes()).hexdigest()
    assert digest.startswith("d717046fb0653ad9")


@pytest.mark.ci
@pytest.mark.parametrize("name", ["float_onnx", "fixed_batch_onnx", "int8_onnx", "int8_pte"])
def test_agent_runners_match_the_runners_of_this_process(name, request, images):
    path = request.getfixturevalue(name)
    samples = images[:2]
    with LocalDevice() as device, open_here(path) as runner:
        found = run_artifact(device, path, samples)
        assert np.array_equal(found, [runner.run({"input": samples})["logits"]])


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (np.array([["cat"]], object), r"object \(1, 1\)"),
        ([{0: 0.5}], "a list"),
        (np.float32([[1], [2]]), r"float32 \(2, 1\)"),
        (np.array(1.0), r"float64 \(\)"),
    ],
)
def test_outputs_other_than_rows_of_numbers_are_refused(output, found):
    with pytest.raises(AgentError, match=f"net returns {found}; expected numbers") as caught:
        tasks.require_rows(output, 1, "net")
    assert caught.value.report["type"] == "ArtifactError"


def test_files_that_no_runtime_reads_are_refused(tmp_path):
    with pytest.raises(
        AgentError, match=r"my net\.bin is a \.bin file; expected \.onnx, \.pte"
    ) as caught:
        open_runner(artifact(tmp_path / "net.bin"), str(tmp_path), 1)
    assert caught.value.report["type"] == "UsageError"


@pytest.mark.parametrize("array", [np.float32(1), np.array([{}])])
def test_files_that_hold_no_samples_are_refused(array, tmp_path):
    np.save(tmp_path / "inputs.npy", array)
    with pytest.raises(AgentError, match=r"The inputs of net are not a \.npy file of samples: .*"):
        tasks.read_samples(str(tmp_path / "inputs.npy"), "net")


def test_incomplete_batches_are_refused(fixed_batch_onnx, images):
    from mobiledeploy.errors import RuntimeFailedError

    with pytest.raises(RuntimeFailedError, match="takes 2 samples at a time; it was given 3"):
        run_artifact(LocalDevice(), fixed_batch_onnx, images)


def test_any_file_name_works(float_onnx, tmp_path, images):
    strange = tmp_path / "mobile net \"v2\" 'ä' $HOME;`id`.onnx"
    shutil.copy(float_onnx, strange)
    expected = run_artifact(LocalDevice(), float_onnx, images)
    assert np.array_equal(run_artifact(LocalDevice(), strange, images), expected)


def test_external_weights_are_sent_with_the_model(float_onnx, tmp_path, images):
    path = tmp_path / "outside.onnx"
    onnx.save(
        onnx.load(float_onnx),
        path,
        save_as_external_data=True,
        location="outside.onnx.data",
        size_threshold=0,
    )
    expected = run_artifact(LocalDevice(), float_onnx, images)
    assert np.array_equal(run_artifact(LocalDevice(), path, images), expected)


def test_an_input_without_a_fixed_size_cannot_be_timed(float_onnx, tmp_path):
    model = onnx.load(float_onnx)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"
    path = tmp_path / "any.onnx"
    onnx.save(model, path)
    with pytest.raises(AgentError, match=r"my any.onnx has no fixed input size"):
        run_bench([path])


def test_a_model_with_two_inputs_is_refused(float_onnx, tmp_path):
    model = onnx.load(float_onnx)
    model.graph.input.append(onnx.helper.make_tensor_value_info("other", 1, [1]))
    path = tmp_path / "two.onnx"
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match="has 2 inputs and 1 outputs"):
        run_artifact(LocalDevice(), path, np.zeros((1, 3, 32, 32), np.float32))


def test_peak_memory_grows_with_the_weights(float_onnx, tmp_path):
    """In processes of their own, in which nothing else has used memory."""
    model = onnx.load(float_onnx)
    ballast = np.random.default_rng(0).normal(size=(10, 8 * 2**20 // 10)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(ballast, "ballast"))
    node = onnx.helper.make_node("ReduceMax", ["ballast", "axes"], ["peak"], keepdims=0)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "axes"))
    model.graph.node[-1].output[0] = "classes"
    model.graph.node.extend([node, onnx.helper.make_node("Add", ["classes", "peak"], ["logits"])])
    heavy = tmp_path / "heavy.onnx"
    onnx.save(model, heavy)
    added = fresh(heavy)["peak_memory_bytes"] - fresh(float_onnx)["peak_memory_bytes"]
    assert added >= 0.9 * ballast.nbytes


def fresh(path, **options):
    request = Request(task="bench", artifacts=(path,), inputs=(None,), rounds=2, **options)
    *_, last = LocalDevice().run_session(request)
    return last["result"]["fresh"]


def test_bench_returns_outputs_of_artifacts_with_inputs(float_onnx, int8_onnx, images):
    request = Request(
        task="bench", artifacts=(float_onnx, int8_onnx), inputs=(images, images[:1]), rounds=2
    )
    *_, last = LocalDevice().run_session(request)
    for path, samples, found in zip(
        (float_onnx, int8_onnx),
        (images, images[:1]),
        decode_outputs(last["result"]["outputs"]),
        strict=True,
    ):
        assert np.array_equal(found, run_artifact(LocalDevice(), path, samples))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds processes to cores")
def test_the_process_can_be_bound_to_cores(float_onnx):
    import os

    core = max(os.sched_getaffinity(0))
    assert fresh(float_onnx, affinity=(core,))["load_ms"] > 0
    for absent in ((4096,), (core, 4096)):
        with pytest.raises(UsageError, match=r"cannot be bound to the cores \[.*4096\]"):
            fresh(float_onnx, affinity=absent)


@pytest.mark.parametrize(
    ("text", "cores"), [("4-7,4", (4, 5, 6, 7)), ("0,0", (0,)), ("7,0-1", (0, 1, 7)), (None, ())]
)
def test_cores_are_parsed_without_duplicates(text, cores):
    assert parse_cores(text) == cores


@pytest.mark.parametrize("text", ["", "x", "0,7-4", "1,", "-1", "0-99999999999", "9" * 5000])
def test_invalid_core_lists_are_refused(text):
    with pytest.raises(UsageError, match="expected cores"):
        parse_cores(text)


@pytest.mark.parametrize("task", ["bench", "outputs"])
def test_a_network_that_fails_on_noise_of_its_own_shape_is_damaged(task, float_onnx, tmp_path):
    """ONNX Runtime loads it, because the batch is symbolic: 8 N values are no 7 rows."""
    model = onnx.load(float_onnx)
    (flatten,) = (node for node in model.graph.node if node.op_type == "Flatten")
    flatten.op_type = "Reshape"
    flatten.input.append("sizes")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([7, -1]), "sizes"))
    path = tmp_path / "damaged.onnx"
    onnx.save(model, path)
    request = Request(task=task, artifacts=(path,), inputs=(None,), rounds=2)
    with pytest.raises(ArtifactError, match="ONNX Runtime failed while running"):
        list(LocalDevice().run_session(request))
