"""The native runners: their output, and how they are found."""

import pytest

from mobiledeploy.devices.android.runners import ExecutorRunner, OnnxRuntimePerfTest, runners_for
from mobiledeploy.errors import RuntimeFailedError, UsageError

LOG = """I 00:00:00.000612 executorch:executor_runner.cpp:343] Resetting threadpool
I 00:00:00.015204 executorch:executor_runner.cpp:624] Model loaded in 14.250000 ms.
I 00:00:00.025204 executorch:executor_runner.cpp:781] Iteration 1 of 3: 9.500000 ms
I 00:00:00.030204 executorch:executor_runner.cpp:781] Iteration 2 of 3: 4.250000 ms
I 00:00:00.034204 executorch:executor_runner.cpp:781] Iteration 3 of 3: 4.125000 ms
I 00:00:00.034304 executorch:executor_runner.cpp:790] Model executed successfully 3 time(s)
"""
SUMMARY = """Setting intra_op_num_threads to 1
Session creation time cost: 0.0183481 s
First inference time cost: 12 ms
Total inference time cost: 0.012 s
Peak working set size: 50905088 bytes
model,0.00425,50905088,74,0
model,0.0041,50905088,74,1
model,4e-05,50905088,74,2
"""


def test_the_output_of_both_runners_is_parsed(tmp_path):
    pte = ExecutorRunner(path=tmp_path / "executor_runner").timing(LOG, warmup=1, runs=2)
    assert (pte.load_ms, pte.first_ms, pte.times_ms) == (14.25, 9.5, (4.25, 4.125))
    onnx = OnnxRuntimePerfTest(path=tmp_path / "perf").timing(SUMMARY, warmup=1, runs=2)
    assert (onnx.load_ms, onnx.first_ms) == (pytest.approx(18.3481), 12)
    assert onnx.times_ms == pytest.approx((4.1, 0.04))


@pytest.mark.parametrize("kind", [ExecutorRunner, OnnxRuntimePerfTest])
@pytest.mark.parametrize(
    "output",
    ["", "Segmentation fault", LOG[:90], LOG[:250], SUMMARY[:80], LOG.replace("4.25", "0.00")],
)
def test_output_without_all_times_is_an_error(kind, output, tmp_path):
    with pytest.raises(RuntimeFailedError, match="does not print its times"):
        kind(path=tmp_path / "runner").timing(output, warmup=0, runs=3)


def test_runners_are_told_apart_by_their_names(tmp_path, runners):
    pte, onnx = runners
    artifacts = [tmp_path / "a.pte", tmp_path / "b.onnx"]
    found = runners_for(artifacts, runners)
    assert {suffix: r.path for suffix, r in found.items()} == {".pte": pte, ".onnx": onnx}
    assert runners_for(artifacts[:1], [pte])[".pte"].path == pte
    with pytest.raises(UsageError, match="No --runner is onnxruntime_perf_test"):
        runners_for(artifacts, [pte])


@pytest.mark.parametrize("name", ["runner", "executor_runner.missing"])
def test_files_that_are_not_runners_are_refused(tmp_path, name):
    with pytest.raises(UsageError, match="is not a runner"):
        runners_for([tmp_path / "a.pte"], [tmp_path / name])
