"""Running a sweep: each point once, failures kept, the rest goes on."""

import pytest

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.sweep import run as running
from mobiledeploy.sweep.pick import Budget
from mobiledeploy.sweep.points import grid
from mobiledeploy.sweep.store import Store

POINTS = grid({"model": ["v2"], "width": ["0.25", "0.5", "1.0"], "weights": ["random"]})


def plan(tmp_path, **changes):
    given = {
        "formats": ("onnx", "pte"),
        "out": tmp_path,
        "calib_data": None,
        "data": None,
        "samples": None,
        "devices": ("local",),
        "runs": 5,
        "jobs": 2,
        "budget": Budget(),
    }
    return running.Plan(**(given | changes))


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have run; width 0.5 fails."""
    made = []

    def fake(arguments, *, threads):
        made.append(arguments)
        assert threads >= 1
        if arguments[0] == "bench":
            return {"measurements": [{"times_ms": [3.0, 1.0, 2.0]}, {"times_ms": [4.0]}]}
        if arguments[0] == "evaluate":
            return {"networks": [{"top1_accuracy": 0.75}]}
        if "0.5" in arguments:
            raise RuntimeFailedError("no room")
        out = arguments[arguments.index("--out") + 1]
        path = f"{out}/a.onnx"
        rung = {
            "artifact": "a.onnx",
            "comparisons": [
                {"reference": "float", "metrics": {"sqnr_db": 20.5, "top1_agreement": 0.9}}
            ],
        }
        entry = {"path": path, "sha256": "a0", "size_bytes": 1000}
        other = entry | {"path": f"{out}/a.pte"}
        return {"artifacts": [entry, other], "parity": {"rungs": [rung]}}

    monkeypatch.setattr(running, "_run", fake)
    return made


def kinds(commands):
    return [command[0] for command in commands]


def test_points_are_made_once_and_failures_are_kept(tmp_path, commands):
    with Store(tmp_path / "a.sqlite") as store:
        first = running.run(POINTS, plan(tmp_path), store, retry=False)
        assert [result.state for result in first] == ["done", "failed", "done"]
        assert first[1].error == "no room"
        onnx, pte = first[0].artifacts
        assert (onnx.sqnr_db, onnx.agreement, onnx.latency_ms) == (20.5, 0.9, {"local": 2.0})
        assert (pte.sqnr_db, pte.latency_ms) == (None, {"local": 4.0})
        assert sorted(kinds(commands)) == ["bench", "bench", "export", "export", "export"]
        commands.clear()
        assert running.run(POINTS, plan(tmp_path), store, retry=False) == first
        assert commands == []
        running.run(POINTS, plan(tmp_path), store, retry=True)
        assert kinds(commands) == ["export"]  # the failed one


def test_every_point_has_a_folder_of_its_own(tmp_path, commands):
    with Store(tmp_path / "a.sqlite") as store:
        points = grid({"model": ["v2"], "ptq": ["fast", "best"]})
        running.run(points, plan(tmp_path), store, retry=False)
    folders = [c[c.index("--out") + 1] for c in commands if c[0] == "export"]
    assert len(set(folders)) == 2


def test_latency_is_measured_after_all_exports(tmp_path, commands):
    with Store(tmp_path / "a.sqlite") as store:
        running.run(POINTS, plan(tmp_path), store, retry=False)
    assert kinds(commands)[-2:] == ["bench", "bench"]


def test_accuracy_is_counted_once_for_all_formats(tmp_path, commands):
    (tmp_path / "a.npz").write_bytes(b"x")
    with Store(tmp_path / "a.sqlite") as store:
        wanted = plan(tmp_path, data=tmp_path / "a.npz", samples=7)
        result, *_ = running.run(POINTS[:1], wanted, store, retry=False)
    assert [artifact.top1 for artifact in result.artifacts] == [0.75, 0.75]
    (command,) = [command for command in commands if command[0] == "evaluate"]
    assert command[-2:] == ["--samples", "7"]


def test_points_over_budget_are_not_measured(tmp_path, commands):
    with Store(tmp_path / "a.sqlite") as store:
        small = plan(tmp_path, budget=Budget(max_size_bytes=10))
        (result,) = running.run(POINTS[:1], small, store, retry=False)
        assert (result.state, result.error) == ("over budget", "0.00 MB, above 1e-05 MB")
        assert kinds(commands) == ["export"]
    commands.clear()
    with Store(tmp_path / "b.sqlite") as store:
        few = plan(tmp_path, budget=Budget(max_macs=1e8))
        results = running.run(POINTS, few, store, retry=False)
        assert [result.state for result in results] == ["done", "failed", "over budget"]
        assert results[2].error == "301 M MACs, above 100 M"
        assert kinds(commands).count("export") == 2  # nothing was done for the third


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path, commands, monkeypatch):
    measure = running._with_latency

    def interrupted(result, given):
        if result.point.width == 1.0:
            raise KeyboardInterrupt
        return measure(result, given)

    monkeypatch.setattr(running, "_with_latency", interrupted)
    with Store(tmp_path / "a.sqlite") as store, pytest.raises(KeyboardInterrupt):
        running.run(POINTS, plan(tmp_path), store, retry=False)
    commands.clear()
    monkeypatch.setattr(running, "_with_latency", measure)
    with Store(tmp_path / "a.sqlite") as store:
        results = running.run(POINTS, plan(tmp_path), store, retry=False)
    assert [result.state for result in results] == ["done", "failed", "done"]
    assert kinds(commands) == ["bench"]  # nothing was exported or measured twice


def test_a_larger_budget_takes_up_points_that_were_given_up(tmp_path, commands):
    with Store(tmp_path / "a.sqlite") as store:
        few = plan(tmp_path, budget=Budget(max_macs=1e8))
        running.run(POINTS, few, store, retry=False)
        commands.clear()
        running.run(POINTS, few, store, retry=False)
        assert commands == []
        results = running.run(POINTS, plan(tmp_path), store, retry=False)
        assert [result.state for result in results] == ["done", "failed", "done"]
        assert kinds(commands) == ["export", "bench"]


def test_the_last_error_of_a_command_is_kept():
    text = "step\nError: The images have no labels.\nTry: add a\nlabels.csv\n"
    assert running._error_of(text) == "The images have no labels."
    assert running._error_of("killed") == "killed"


def test_a_command_that_fails_says_why():
    with pytest.raises(RuntimeFailedError, match="no-such-model"):
        running._run(["export", "no-such-model"], threads=1)
