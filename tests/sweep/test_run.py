"""Running a sweep: each point once, failures kept, the rest goes on."""

from pathlib import Path
from threading import Event

import pytest

from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.sweep import local_workers
from mobiledeploy.sweep.commands import Commands, InterruptedCommandError
from mobiledeploy.sweep.local_workers import LocalWorkers
from mobiledeploy.sweep.make_point import DeviceName, Plan
from mobiledeploy.sweep.measure_points import together
from mobiledeploy.sweep.pick import Budget
from mobiledeploy.sweep.points import grid
from mobiledeploy.sweep.run import run
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
    return Plan(**(given | changes))


def sweep(points, wanted, store, *, retry=False):
    with LocalWorkers(wanted) as workers:
        return run(points, wanted, store, workers, retry=retry)


def benched(command):
    """Return the artifacts that a `bench` command measures."""
    return command[1 : command.index("--device")]


@pytest.fixture
def commands(monkeypatch):
    """The commands that would have run; width 0.5 fails."""
    made = []

    def fake(_, arguments, *, threads, shared=True):
        made.append(arguments)
        assert threads >= 1
        assert shared == (arguments[:2] != ["export", "net.py:create"])
        if arguments[0] == "bench":
            times = {"onnx": {"times_ms": [3.0, 1.0, 2.0]}, "pte": {"times_ms": [4.0]}}
            counts = {"onnx": {"median_instructions": 7e6}, "pte": {"median_instructions": 8e6}}
            found = counts if "--count-instructions" in arguments else times
            formats = [each.rpartition(".")[2] for each in benched(arguments)]
            return {"measurements": [found[each] for each in formats], "host": {"model": "a chip"}}
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

    monkeypatch.setattr(Commands, "run", fake)
    return made


def kinds(commands):
    return [command[0] for command in commands]


def test_points_are_made_once_and_failures_are_kept(tmp_path, commands):
    with Store(tmp_path / "a.sqlite") as store:
        first = sweep(POINTS, plan(tmp_path), store)
        assert [result.state for result in first] == ["done", "failed", "done"]
        assert first[1].error == "no room"
        onnx, pte = first[0].artifacts
        assert (onnx.sqnr_db, onnx.agreement, onnx.latency_ms) == (20.5, 0.9, {"local": 2.0})
        assert (pte.sqnr_db, pte.latency_ms) == (None, {"local": 4.0})
        assert sorted(kinds(commands)) == ["bench", "export", "export", "export"]
        commands.clear()
        assert sweep(POINTS, plan(tmp_path), store) == first
        assert commands == []
        sweep(POINTS, plan(tmp_path), store, retry=True)
        assert kinds(commands) == ["export"]  # the failed one


@pytest.mark.usefixtures("commands")
def test_a_users_code_has_a_process_of_its_own(tmp_path):
    (point,) = grid({"model": ["net.py:create"]})
    with Store(tmp_path / "a.sqlite") as store:  # the commands check it
        (result,) = sweep([point], plan(tmp_path), store)
    assert result.state == "done"


def test_every_point_has_a_folder_of_its_own(tmp_path, commands):
    with Store(tmp_path / "a.sqlite") as store:
        points = grid({"model": ["v2"], "ptq": ["fast", "best"]})
        sweep(points, plan(tmp_path), store)
    folders = [c[c.index("--out") + 1] for c in commands if c[0] == "export"]
    assert len(set(folders)) == 2


def test_latency_is_measured_after_all_exports(tmp_path, commands):
    with Store(tmp_path / "a.sqlite") as store:
        sweep(POINTS, plan(tmp_path), store)
    assert kinds(commands) == ["export", "export", "export", "bench"]


def test_accuracy_is_counted_once_for_all_formats(tmp_path, commands):
    (tmp_path / "a.npz").write_bytes(b"x")
    with Store(tmp_path / "a.sqlite") as store:
        wanted = plan(tmp_path, data=tmp_path / "a.npz", samples=7)
        result, *_ = sweep(POINTS[:1], wanted, store)
    assert [artifact.top1 for artifact in result.artifacts] == [0.75, 0.75]
    (command,) = [command for command in commands if command[0] == "evaluate"]
    assert command[-2:] == ["--samples", "7"]


def test_points_over_budget_are_not_measured(tmp_path, commands):
    with Store(tmp_path / "a.sqlite") as store:
        small = plan(tmp_path, budget=Budget(max_size_bytes=10))
        (result,) = sweep(POINTS[:1], small, store)
        assert (result.state, result.error) == ("over budget", "0.00 MB, above 1e-05 MB")
        assert kinds(commands) == ["export"]
    commands.clear()
    with Store(tmp_path / "b.sqlite") as store:
        few = plan(tmp_path, budget=Budget(max_macs=1e8))
        results = sweep(POINTS, few, store)
        assert [result.state for result in results] == ["done", "failed", "over budget"]
        assert results[2].error == "301 M MACs, above 100 M"
        assert kinds(commands).count("export") == 2  # nothing was done for the third


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path, commands, monkeypatch):
    measure = local_workers.measured_on

    def interrupted(results, *given):
        if len(results) < 2:  # the second group
            raise KeyboardInterrupt
        return measure(results, *given)

    points = [*POINTS, *grid({"model": ["v1"]})]
    monkeypatch.setattr(local_workers, "measured_on", interrupted)
    with Store(tmp_path / "a.sqlite") as store, pytest.raises(KeyboardInterrupt):
        sweep(points, plan(tmp_path), store)
    commands.clear()
    monkeypatch.setattr(local_workers, "measured_on", measure)
    with Store(tmp_path / "a.sqlite") as store:
        results = sweep(points, plan(tmp_path), store)
    assert [result.state for result in results] == ["done", "failed", "done", "done"]
    (command,) = commands  # nothing was exported or measured twice
    assert [Path(each).parent.name[:2] for each in benched(command)] == ["v1", "v1"]


@pytest.mark.parametrize(
    ("formats", "sizes"),
    [(("onnx",), [3, 1]), (("onnx", "pte"), [2, 2]), (("a", "b", "c"), [1] * 4)],
)
def test_points_are_measured_together_as_long_as_that_saves_sessions(tmp_path, formats, sizes):
    groups = together(dict.fromkeys("abcd", "result"), plan(tmp_path, formats=formats))
    assert [len(group) for group in groups] == sizes
    assert [key for group in groups for key in group] == [*"abcd"]


def test_an_artifact_that_cannot_be_measured_fails_alone(tmp_path, commands, monkeypatch):
    fake = Commands.run

    def refusing(self, arguments, **options):
        if arguments[0] == "bench" and any("v1-" in each for each in arguments):
            raise RuntimeFailedError("it crashed")
        return fake(self, arguments, **options)

    monkeypatch.setattr(Commands, "run", refusing)
    with Store(tmp_path / "a.sqlite") as store:
        results = sweep(grid({"model": ["v1", "v2"]}), plan(tmp_path), store)
    assert [(result.state, result.error) for result in results] == [
        ("failed", "it crashed"),
        ("done", ""),
    ]
    assert results[1].artifacts[0].latency_ms == {"local": 2.0}
    assert len(benched(commands[-1])) == 2


def test_a_larger_budget_takes_up_points_that_were_given_up(tmp_path, commands):
    with Store(tmp_path / "a.sqlite") as store:
        few = plan(tmp_path, budget=Budget(max_macs=1e8))
        sweep(POINTS, few, store)
        commands.clear()
        sweep(POINTS, few, store)
        assert commands == []
        results = sweep(POINTS, plan(tmp_path), store)
        assert [result.state for result in results] == ["done", "failed", "done"]
        assert kinds(commands) == ["export", "bench"]


@pytest.mark.usefixtures("commands")
def test_what_is_finished_is_kept_after_ctrl_c(tmp_path, monkeypatch):
    started, stopped = Event(), Event()
    fake = Commands.run
    kept = {}

    def run_command(self, arguments, *, threads, **_):
        if arguments[3] == "1":  # still runs while the sweep is stopped
            started.set()
            assert stopped.wait(30)
        return fake(self, arguments, threads=threads)

    def put(identity, result):
        assert started.wait(30)
        if not stopped.is_set():
            raise KeyboardInterrupt
        kept[identity] = result.state

    monkeypatch.setattr(Commands, "run", run_command)
    monkeypatch.setattr(Commands, "stop", lambda _: stopped.set())
    points = {str(point.width): point for point in (POINTS[0], POINTS[2])}
    with pytest.raises(KeyboardInterrupt):
        LocalWorkers(plan(tmp_path)).make(points, put)
    assert kept == {"0.25": "exported", "1.0": "exported"}


def test_interrupted_points_are_made_again(tmp_path, commands, monkeypatch):
    fake = Commands.run

    def killed(self, arguments, *, threads, **_):
        if "0.25" in arguments:
            raise InterruptedCommandError("`mobiledeploy export` was killed, twice.")
        return fake(self, arguments, threads=threads)

    with Store(tmp_path / "a.sqlite") as store:
        monkeypatch.setattr(Commands, "run", killed)
        first = sweep(POINTS, plan(tmp_path), store)
        assert [result.state for result in first] == ["interrupted", "failed", "done"]
        monkeypatch.setattr(Commands, "run", fake)
        commands.clear()
        second = sweep(POINTS, plan(tmp_path), store)
        assert [result.state for result in second] == ["done", "failed", "done"]
        assert kinds(commands) == ["export", "bench"]


def test_a_device_that_was_measured_is_not_measured_again(tmp_path, commands, monkeypatch):
    fake = Commands.run

    def killed(self, arguments, *, threads, **_):
        if "ssh://pi" in arguments:
            raise InterruptedCommandError("`mobiledeploy bench` was killed, twice.")
        return fake(self, arguments, threads=threads)

    wanted = plan(tmp_path, devices=("local", "pi=ssh://pi"))
    with Store(tmp_path / "a.sqlite") as store:
        monkeypatch.setattr(Commands, "run", killed)
        (first,) = sweep(POINTS[:1], wanted, store)
        assert (first.state, first.error) == ("exported", "`mobiledeploy bench` was killed, twice.")
        assert list(first.artifacts[0].latency_ms) == ["local"]
        monkeypatch.setattr(Commands, "run", fake)
        commands.clear()
        (second,) = sweep(POINTS[:1], wanted, store)
    assert (second.state, second.error) == ("done", "")
    assert list(second.artifacts[0].latency_ms) == ["local", "pi=ssh://pi"]
    assert second.artifacts[0].machines == {"local": "a chip", "pi=ssh://pi": "a chip"}
    assert [command[command.index("--device") + 1] for command in commands] == ["ssh://pi"]


def test_instructions_are_counted_where_qemu_runs_and_time_is_measured_elsewhere(
    tmp_path, commands
):
    devices = ("local", "arm=exec:qemu-aarch64 python3")
    wanted = plan(tmp_path, devices=devices, counting=True)
    with Store(tmp_path / "a.sqlite") as store:
        (result,) = sweep(POINTS[:1], wanted, store)
        assert result.state == "done"
        assert result.artifacts[0].latency_ms == {"local": 2.0}
        assert result.artifacts[0].instructions == {devices[1]: 7e6}
        assert [command for command in commands if "--count-instructions" in command] == [
            command for command in commands if "exec:qemu-aarch64 python3" in command
        ]
        assert sweep(POINTS[:1], wanted, store) == [result]
        timed = plan(tmp_path, devices=devices)
        (other,) = sweep(POINTS[:1], timed, store)
    assert set(other.artifacts[0].latency_ms) == set(devices)
    assert other.artifacts[0].instructions == {}


def test_larger_points_are_not_made_if_a_smaller_one_is_too_slow(tmp_path, commands):
    points = grid({"model": ["v2", "v1"], "width": ["1.0", "0.25"], "resolution": ["160", "96"]})
    slow = plan(tmp_path, jobs=1, budget=Budget(max_latency_ms=1.5))
    with Store(tmp_path / "a.sqlite") as store:
        results = sweep(points, slow, store)
        made = [command for command in commands if command[0] == "export"]
        assert [command[1:6:2] for command in made] == [["v2", "0.25", "96"], ["v1", "0.25", "96"]]
        assert [result.state for result in results] == [*("over budget",) * 3, "done"] * 2
        assert results[0].error == (
            "v2, width 0.25, 96 pixels, balanced is smaller and takes 2 ms, above 1.5 ms"
        )
        commands.clear()
        enough = plan(tmp_path, budget=Budget(max_latency_ms=4))
        assert {result.state for result in sweep(points, enough, store)} == {"done"}
        assert kinds(commands).count("export") == 6


def test_a_device_may_have_a_name():
    assert (DeviceName("ssh://a@b:22").name, DeviceName("local").uri) == ("", "local")
    named = DeviceName("pi5=ssh://a@b:22")
    assert (named.name, named.uri) == ("pi5", "ssh://a@b:22")
    assert DeviceName("exec:env A=1 python3").name == ""
