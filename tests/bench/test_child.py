"""One session: what is loaded first, what is told, what comes out."""

import io
import json
import subprocess
import sys

import onnx
import pytest

from mobiledeploy.bench import child
from mobiledeploy.errors import ArtifactError


def run_session(artifacts, **options):
    heard = []
    options = {"threads": 1, "rounds": 3, "warmup": 1, "seed": 0, "duration_s": None} | options
    result = child.session(artifacts=[str(a) for a in artifacts], tell=heard.append, **options)
    return result, heard


def test_a_session_times_all_and_looks_closer_at_the_first(float_onnx, float_pte):
    result, heard = run_session([float_pte, float_onnx])
    assert [len(times) for times in result["times_ms"]] == [3, 3]
    assert all(t > 0 for times in result["times_ms"] for t in times)
    fresh = result["fresh"]
    assert fresh["runtime"].startswith("executorch ")
    assert fresh["load_ms"] > 0
    assert fresh["first_ms"] > 0
    assert [m["loading"] for m in heard if "loading" in m] == [str(float_pte), str(float_onnx)]


def progress(times_s, **options):
    """Report a round at each of these times; return the shares that were told."""
    heard = []
    clock = iter([0.0, *times_s])
    report = child.ProgressReport(heard.append, clock_s=lambda: next(clock), **options)
    for rounds_done in range(len(times_s)):
        report(rounds_done)
    return [message["progress"] for message in heard]


def test_progress_is_the_share_of_the_rounds():
    assert progress([1, 2, 3, 4, 5], rounds=4, duration_s=None) == [0, 0.25, 0.5, 0.75, 1]


def test_progress_comes_five_times_a_second_at_most():
    assert progress([0.1, 0.2, 0.3, 0.45, 0.6], rounds=10, duration_s=None) == [0.1, 0.3]


def test_progress_over_a_duration_is_the_share_of_it():
    assert progress([2, 4, 9], rounds=1, duration_s=8) == [0.25, 0.5, 1]


def test_a_session_can_last_for_a_time(float_onnx):
    result, _ = run_session([float_onnx], rounds=1, duration_s=0.3)
    assert len(result["times_ms"][0]) > 2


def test_the_input_fits_the_network(fixed_batch_onnx, float_onnx):
    from mobiledeploy.runtimes import open_runner

    for path, batch in ((fixed_batch_onnx, 2), (float_onnx, 1)):
        with open_runner(path) as runner:
            array = child.example_input(path, runner)["input"]
        assert array.shape == (batch, 3, 32, 32)
        assert 0.9 < array.std() < 1.1


def test_an_input_of_any_size_cannot_be_timed(float_onnx, tmp_path):
    model = onnx.load(float_onnx)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"
    path = tmp_path / "any.onnx"
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match="images of any size"):
        run_session([path])


def test_peak_memory_grows_with_the_weights(float_onnx, tmp_path):
    """In processes of their own, where nothing else has touched memory before."""
    import numpy as np

    model = onnx.load(float_onnx)
    ballast = np.random.default_rng(0).normal(size=(10, 8 * 2**20 // 10)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(ballast, "ballast"))
    node = onnx.helper.make_node("ReduceMax", ["ballast", "axes"], ["peak"], keepdims=0)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "axes"))
    model.graph.node[-1].output[0] = "classes"
    model.graph.node.extend([node, onnx.helper.make_node("Add", ["classes", "peak"], ["logits"])])
    heavy = tmp_path / "heavy.onnx"
    onnx.save(model, heavy)
    added = (
        fresh_process(heavy)["peak_memory_bytes"] - fresh_process(float_onnx)["peak_memory_bytes"]
    )
    assert added >= 0.9 * ballast.nbytes


def fresh_process(path):
    request = {
        "artifacts": [str(path)],
        "threads": 1,
        "rounds": 1,
        "warmup": 0,
        "seed": 0,
        "duration_s": None,
    }
    done = subprocess.run(
        [sys.executable, "-m", "mobiledeploy.bench.child"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])["result"]["fresh"]


def test_what_others_print_does_not_get_between_the_messages(float_onnx):
    script = (
        "import os; from mobiledeploy.bench import child\n"
        "real = child.session\n"
        "def noisy(**request):\n"
        "    print('python'); os.write(1, b'native'); return real(**request)\n"
        "child.session = noisy; child.main()"
    )
    request = {"artifacts": [str(float_onnx)], "threads": 1, "rounds": 2, "warmup": 0, "seed": 0}
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(request | {"duration_s": None}),
        capture_output=True,
        text=True,
        check=True,
    )
    messages = [json.loads(line) for line in io.StringIO(done.stdout)]
    assert "result" in messages[-1]
    assert "native" in done.stderr
