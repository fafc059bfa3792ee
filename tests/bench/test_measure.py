"""The measurement from end to end, and the assignment of figures to artifacts."""

import hashlib
import importlib
import shutil
from types import SimpleNamespace

import pytest

from mobiledeploy.bench.measure import load_order, measure, sessions_for
from mobiledeploy.bench.stats import paired_ratio
from mobiledeploy.devices.python_device import LocalDevice
from mobiledeploy.errors import ArtifactError, RuntimeFailedError, UsageError


@pytest.mark.ci
def test_both_runtimes_are_measured_in_one_run(float_onnx, int8_pte):
    onnx, pte = measure([float_onnx, int8_pte], threads=2, runs=9, warmup=1)
    assert [m.artifact for m in (onnx, pte)] == [str(float_onnx), str(int8_pte)]
    assert onnx.runtime.startswith("onnxruntime ")
    assert pte.runtime.startswith("executorch ")
    for path, found in ((float_onnx, onnx), (int8_pte, pte)):
        assert found.artifact_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (found.threads, found.warmup, len(found.times_ms)) == (2, 1, 9)
        assert min(*found.times_ms, found.load_ms, found.first_ms) > 0
        assert found.peak_memory_bytes > 0
        assert "only 9 runs" in found.warnings[-1]
    assert paired_ratio(onnx, pte).median > 0


@pytest.mark.parametrize(("artifacts", "sessions"), [(1, 3), (2, 4), (3, 3), (4, 4), (7, 7)])
def test_each_artifact_is_loaded_first_equally_often(artifacts, sessions):
    assert sessions_for(artifacts) == sessions
    orders = [load_order(artifacts, session) for session in range(sessions)]
    assert all(sorted(order) == list(range(artifacts)) for order in orders)
    for place in range(artifacts):
        there = [order[place] for order in orders]
        assert {there.count(index) for index in range(artifacts)} == {sessions // artifacts}


COOL = {"throttle_count": None, "throttled_now": None, "frequency_mhz": None}


class Sessions(LocalDevice):
    """Returns sessions without running anything; each figure shows its session and artifact."""

    def __init__(self):
        super().__init__()
        self.requests = []

    def run_session(self, request):
        session = len(self.requests)
        self.requests.append(request)
        names = [path.name for path in request.artifacts]
        yield {"progress": 0.5}
        fresh = {
            "runtime": f"runtime of {names[0]}",
            "load_ms": 100.0 * session + 1,
            "first_ms": 100.0 * session + 2,
            "peak_memory_bytes": 100 * session + 3,
        }
        rounds = range(request.rounds)
        yield {
            "result": {
                "fresh": fresh,
                "times_ms": [[ord(n[0]) + session / 10 for _ in rounds] for n in names],
                "conditions": {"before": COOL, "after": COOL | {"frequency_mhz": session}},
                "outputs": [None for _ in names],
            }
        }


@pytest.fixture
def sessions():
    return Sessions()


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("a.onnx", "b.onnx")]
    for path in paths:
        path.write_bytes(path.name.encode())
    return paths


def test_figures_belong_to_their_artifact(sessions, files):
    a, b = measure(files, runs=6, device=sessions)
    assert [r.rounds for r in sessions.requests] == [2, 2, 1, 1]
    assert a.times_ms == tuple(ord("a") + t / 10 for t in (0, 0, 1, 1, 2, 3))
    assert b.times_ms == tuple(ord("b") + t / 10 for t in (0, 0, 1, 1, 2, 3))
    assert (a.runtime, b.runtime) == ("runtime of a.onnx", "runtime of b.onnx")
    # a is first in sessions 0 and 2, b in 1 and 3.
    assert (a.load_ms, a.first_ms, a.peak_memory_bytes) == (101, 102, 3)
    assert (b.load_ms, b.first_ms, b.peak_memory_bytes) == (201, 202, 103)


def test_an_artifact_can_be_measured_against_itself(sessions, files):
    first, second = measure([files[0], files[0]], runs=4, device=sessions)
    assert first.times_ms == second.times_ms
    assert first.load_ms != second.load_ms


def test_runs_are_divided_among_the_sessions(sessions, files):
    found = measure(files, runs=101, device=sessions)
    assert [r.rounds for r in sessions.requests] == [26, 25, 25, 25]
    assert len(found[0].times_ms) == 101


def test_every_session_has_at_least_one_round(sessions, files):
    assert len(measure(files, runs=2, device=sessions)[0].times_ms) == 4


def test_options_reach_every_session(sessions, files):
    found = measure(
        files, device=sessions, threads=3, warmup=7, duration_s=8.0, seed=40, affinity=[1, 0]
    )
    requests = sessions.requests
    assert {r.task for r in requests} == {"bench"}
    assert {r.threads for r in requests} == {3}
    assert {r.warmup for r in requests} == {7}
    assert {r.duration_s for r in requests} == {2.0}
    assert {r.affinity for r in requests} == {(1, 0)}
    assert {m.affinity for m in found} == {(1, 0)}
    assert [r.seed for r in requests] == [40, 41, 42, 43]


def test_the_conditions_of_every_session_are_kept(sessions, files):
    for measurement in measure(files, device=sessions):
        after = [c["after"]["frequency_mhz"] for c in measurement.conditions]
        assert after == [0, 1, 2, 3]


def test_cool_down_pauses_between_sessions_only(sessions, files, monkeypatch):
    module = importlib.import_module("mobiledeploy.bench.measure")
    rests = []
    clock = SimpleNamespace(sleep=lambda s: rests.append((s, len(sessions.requests))))
    monkeypatch.setattr(module, "time", clock)
    measure(files, device=sessions, cool_down_s=7)
    assert rests == [(7, 1), (7, 2), (7, 3)]


def test_every_session_waits_for_a_cool_device(sessions, files, monkeypatch):
    module = importlib.import_module("mobiledeploy.bench.measure")
    waits = []
    monkeypatch.setattr(
        module,
        "wait_until_below",
        lambda device, celsius, timeout_s: waits.append(
            (device, celsius, timeout_s, len(sessions.requests))
        ),
    )
    measure(files, device=sessions, wait_below_c=37, wait_timeout_s=60)
    assert waits == [(sessions, 37, 60, done) for done in range(4)]


def test_progress_ends_at_the_total(sessions, files):
    from mobiledeploy.utils import progress

    class Reporter:
        steps = 0

        def track(self, items, description, total):
            self.shown = (description, total)
            for item in items:
                self.steps += 1
                yield item

    reporter = Reporter()
    with progress.reporting_to(reporter):
        measure(files, device=sessions)
    assert reporter.shown == ("Timing in 4 sessions", 80)
    assert reporter.steps == 80


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "threads is 0; expected at least 1"),
        ({"runs": 1}, "runs is 1; expected at least 2"),
        ({"warmup": -1}, "warmup is -1; expected at least 0"),
        ({"duration_s": 0}, "duration is 0 s"),
        ({"duration_s": float("nan")}, "duration is nan s"),
    ],
)
def test_numbers_out_of_range_are_usage_errors(sessions, files, options, message):
    with pytest.raises(UsageError, match=message):
        measure(files, device=sessions, **options)
    assert sessions.requests == []


def test_no_artifacts_are_a_usage_error():
    with pytest.raises(UsageError, match="nothing to measure"):
        measure([])


def test_a_missing_artifact_is_an_artifact_error(tmp_path):
    with pytest.raises(ArtifactError, match=r"There is no file .*none\.onnx"):
        measure([tmp_path / "none.onnx"])


def test_a_damaged_artifact_is_an_artifact_error(tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ArtifactError, match=r"cannot load .*bad\.onnx"):
        measure([path])


def test_a_runtime_that_crashes_is_reported(float_onnx, tmp_path, monkeypatch):
    """ONNX Runtime aborts the process, as a native library may."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import onnxruntime, os\nonnxruntime.InferenceSession = lambda *_, **__: os.abort()\n"
    )
    artifact = tmp_path / "innocent.onnx"
    shutil.copy(float_onnx, artifact)
    with pytest.raises(RuntimeFailedError, match=r"(?s)SIGABRT.*innocent\.onnx"):
        measure([artifact])
