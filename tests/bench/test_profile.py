"""Profiles of real artifacts on this machine and on other devices."""

import json
import sys

import jsonschema
import numpy as np
import pytest

from mobiledeploy.bench.chrome_trace import to_chrome_trace
from mobiledeploy.bench.profile import OperatorTime, Profile, ProfileDocument, profile
from mobiledeploy.bench.xnnpack_operators import (
    empty_operator,
    operator_names,
    single_operators,
)
from mobiledeploy.cli import _run, main
from mobiledeploy.devices.agent import operators as agent_operators
from mobiledeploy.devices.agent import runtimes as agent_runtimes
from mobiledeploy.devices.agent.errors import AgentError
from mobiledeploy.devices.agent.tasks import TASKS
from mobiledeploy.devices.open import open_device
from mobiledeploy.devices.python_device import LocalDevice
from mobiledeploy.devices.request import request_files, request_message
from mobiledeploy.errors import ArtifactError, RuntimeFailedError, UsageError
from mobiledeploy.utils.json_model import schema_text

HERE = f"exec:{sys.executable}"


class InProcess(LocalDevice):
    """Runs the agent's task in this process, where its clock can be replaced."""

    def __init__(self, folder):
        super().__init__()
        self._folder = folder

    def run_session(self, request):
        files = request_files(request)
        for name, data in files.items():
            path = self._folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        message = json.loads(json.dumps(request_message(request, files, limit_s=60)))
        yield {"result": TASKS[request.task](message, str(self._folder), lambda _: None)}


@pytest.fixture
def ticking(tmp_path, monkeypatch):
    """A device on which the network takes 50 us, an empty call 2 us, and operator n 2 + n us.

    With a real clock, other programs may cost more time than a small operator.
    """
    numbers = {}

    def elapsed_us(run):
        run()
        program = getattr(run, "__self__", None)
        return 50.0 if program is None else 2.0 + numbers.setdefault(id(program), len(numbers))

    for module in (agent_operators, sys.modules[TASKS["profile"].__module__]):
        monkeypatch.setattr(module, "elapsed_us", elapsed_us)
    return InProcess(tmp_path)


def test_the_time_of_an_empty_call_is_subtracted_from_every_operator(int8_pte, ticking):
    assert empty_operator().inputs == (("float32", (1,)),)
    found = profile(int8_pte, device=ticking, runs=20)
    assert sum(o.kind == "XNNConv2d" for o in found.operators) == 2
    assert [o.median_us for o in found.operators] == list(range(1, len(found.operators) + 1))
    assert found.whole_us == 50
    assert "2.0 us for an empty call" in found.method


@pytest.mark.parametrize(
    ("artifact", "kinds"),
    [
        ("int8_onnx", {"QLinearConv": 3, "QLinearAdd": 1, "QuantizeLinear": 1}),
        ("int8_pte", {"XNNConv2d": 2, "XNNDepthwiseConv2d": 1, "XNNAdd": 1}),
    ],
)
def test_every_operator_is_timed_and_shares_add_up(artifact, kinds, request, ticking):
    """The fake clock applies to the .pte; ONNX Runtime's profiler has a clock of its own."""
    found = profile(request.getfixturevalue(artifact), device=ticking, runs=3)
    counted = {kind.kind: kind.count for kind in found.by_kind}
    assert kinds.items() <= counted.items()
    assert sum(counted.values()) == len(found.operators)
    assert sum(kind.share for kind in found.by_kind) == pytest.approx(1)
    assert found.sum_us > 0
    assert all(operator.kind.removeprefix("XNN") in operator.name for operator in found.operators)
    # both are timed in turn, so other programs do not part them by a large factor
    assert found.sum_us / 20 < found.whole_us < found.sum_us * 20
    totals = [kind.total_us for kind in found.by_kind]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.ci
@pytest.mark.parametrize("artifact", ["int8_onnx", "int8_pte"])
def test_this_machine_and_another_device_report_the_same_operators(artifact, request):
    path = request.getfixturevalue(artifact)
    local = profile(path, runs=3)
    with open_device(HERE) as device:
        remote = profile(path, device=device, runs=7)
        assert remote.device == device.host.label
    assert local.device.startswith("local (")
    assert len(remote.operators) > 5
    for found, expected in zip(remote.operators, local.operators, strict=True):
        assert (found.kind, found.name) == (expected.kind, expected.name)
    assert remote.method.split(" minus ")[0] == local.method.split(" minus ")[0]
    assert remote.whole_us > 0
    assert min(o.median_us for o in remote.operators) >= 0
    # a tiny operator may take no longer than an empty call
    assert remote.sum_us > 0 or " minus " in remote.method


def test_the_second_run_of_each_round_is_timed(int8_onnx, monkeypatch):
    """ONNX Runtime's events of the first runs and of the warm-up are left out."""
    times = iter(range(1, 1000))
    node = {"op_name": "Conv", "node_index": "0", "output_type_shape": [{"float": [1, 2]}]}
    monkeypatch.setattr(
        agent_runtimes.ProfiledOnnxRuntime,
        "events",
        lambda _: [
            {"cat": "Node", "name": "c_kernel_time", "dur": next(times), "args": node}
            for _ in range(8)
        ],
    )
    [operator] = time_kernels(int8_onnx, rounds=3, warmup=1)
    assert operator == {"name": "Conv c [1, 2]", "kind": "Conv", "times_us": [4, 6, 8]}


def test_a_profile_with_lost_events_is_an_error(int8_onnx, monkeypatch):
    """ONNX Runtime stops recording events when its memory for them is full."""
    events = agent_runtimes.ProfiledOnnxRuntime.events

    def all_but_one(self):
        *rest, _ = (event for event in events(self) if event.get("cat") == "Node")
        return rest

    monkeypatch.setattr(agent_runtimes.ProfiledOnnxRuntime, "events", all_but_one)
    with pytest.raises(AgentError, match=r"has 5 runs of .*, not 6"):
        time_kernels(int8_onnx, rounds=2, warmup=1)


def time_kernels(path, *, rounds, warmup):
    artifact = {"file": path.name, "label": "net", "inputs": None}
    request = {"artifacts": [artifact], "threads": 1, "rounds": rounds, "warmup": warmup}
    runner = agent_runtimes.open_runner(artifact, str(path.parent), 1)
    batch = np.zeros((1, *runner.input_shape), np.float32)
    return agent_operators.time_kernels(
        request, str(path.parent), batch, lambda: None, lambda _: None
    )


def test_artifacts_and_requests_that_cannot_be_profiled_are_errors(portable_pte, int8_pte):
    with pytest.raises(ArtifactError, match="no operator that can be timed"):
        profile(portable_pte, runs=2)
    with pytest.raises(UsageError, match="0 runs and 1 threads"):
        profile(int8_pte, runs=0)
    bare = f"exec:{sys.executable} -S"  # no site-packages
    with open_device(bare) as device, pytest.raises(RuntimeFailedError, match="executorch"):
        profile(int8_pte, device=device)


class Tracing(LocalDevice):
    """A device whose runtime reports operators with these names."""

    traces_operators = True

    def __init__(self, names):
        super().__init__()
        self._operators = [{"name": name, "kind": "K", "times_us": [2.0, 4.0]} for name in names]

    def run_session(self, request):
        assert request.operators == ()
        result = {"runtime": "executorch 1", "whole_us": [9.0], "operators": self._operators}
        yield {"result": result}


def test_traced_operators_have_the_names_of_the_graph(int8_pte):
    nodes = list(operator_names(int8_pte))
    assert nodes == [(each.name, each.kind) for each in single_operators(int8_pte)]
    traced = profile(int8_pte, device=Tracing(f"Op #{n}" for n in range(len(nodes))))
    assert [(o.name, o.kind) for o in traced.operators] == nodes
    assert {o.median_us for o in traced.operators} == {3.0}
    assert "event tracer" in traced.method


@pytest.mark.parametrize("kernel", ["add.out", "Op #9"])
def test_operators_that_are_not_the_nodes_keep_their_names(kernel, int8_pte):
    nodes = len(list(operator_names(int8_pte)))
    names = [f"Op #{n}" for n in range(nodes - (kernel == "add.out"))] + [kernel]
    traced = profile(int8_pte, device=Tracing(names))
    assert [(o.name, o.kind) for o in traced.operators] == [(name, "K") for name in names]


def test_a_program_without_operators_cannot_be_traced(int8_pte):
    with pytest.raises(ArtifactError, match="no operator that can be timed"):
        profile(int8_pte, device=Tracing([]))


TWO = Profile(
    artifact="folder/net.pte",
    runtime="executorch 1",
    device="local (A chip, aarch64)",
    method="alone",
    threads=1,
    whole_us=9.0,
    operators=(
        OperatorTime(name="a", kind="Conv", median_us=3.0),
        OperatorTime(name="b", kind="Add", median_us=1.0),
        OperatorTime(name="c", kind="Conv", median_us=4.0),
    ),
)


def test_a_trace_has_a_process_per_artifact_with_consecutive_operators():
    document = to_chrome_trace([TWO, TWO.model_copy(update={"artifact": "other.onnx"})])
    events = document["traceEvents"]
    spans = [(e["pid"], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    one = [("a", 0.0, 3.0), ("b", 3.0, 1.0), ("c", 4.0, 4.0)]
    assert spans == [(pid, *span) for pid in (0, 1) for span in one]
    names = [e["args"]["name"] for e in events if e["ph"] == "M"]
    assert [name.split()[0] for name in names] == ["net.pte", "other.onnx"]


def test_kinds_are_summed_and_sorted():
    assert [(k.kind, k.count, k.total_us, k.share) for k in TWO.by_kind] == [
        ("Conv", 2, 7.0, 7 / 8),
        ("Add", 1, 1.0, 1 / 8),
    ]


def test_operators_that_take_no_time_have_a_share_of_zero():
    idle = TWO.model_copy(
        update={"operators": (OperatorTime(name="a", kind="Conv", median_us=0.0),)}
    )
    assert [kind.share for kind in idle.by_kind] == [0]


def test_the_json_schema_is_current_and_describes_the_document(repository, request):
    path = repository / "mobiledeploy" / "bench" / "profile.schema.json"
    if request.config.getoption("--regen"):
        path.write_text(schema_text(ProfileDocument))
    assert path.read_text() == schema_text(ProfileDocument)
    document = ProfileDocument(profiles=(TWO,)).model_dump(mode="json")
    jsonschema.validate(document, json.loads(path.read_text()))
    assert (document["schema"], document["kind"]) == (2, "mobiledeploy.profile")


@pytest.mark.parametrize("device", ["local", HERE])
def test_the_command_prints_tables_and_writes_both_documents(device, int8_onnx, tmp_path, capsys):
    result, trace = tmp_path / "profile.json", tmp_path / "trace.json"
    command = ["bench", str(int8_onnx), "--profile", "--runs", "3", "--device", device]
    assert _run([*command, "--json", str(result), "--trace", str(trace)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("int8.onnx\nonnxruntime ")
    assert "QLinearConv" in captured.out
    assert "%" in captured.out
    (entry,) = json.loads(result.read_text())["profiles"]
    assert entry["device"].startswith(f"{device} (")
    assert len(entry["operators"]) == sum(kind["count"] for kind in entry["by_kind"])
    spans = [e for e in json.loads(trace.read_text())["traceEvents"] if e["ph"] == "X"]
    assert len(spans) == len(entry["operators"])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--profile", "--runner", "executor_runner"], "--runner"),
        (["--trace", "t.json", "--baseline", "b.json", "--warmup", "10"], "--warmup, --baseline"),
    ],
)
def test_options_that_do_not_apply_to_a_profile_are_refused(
    int8_onnx, options, named, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["bench", str(int8_onnx), *options])
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--json", "--trace"])
def test_an_unwritable_document_is_an_error_before_anything_is_timed(
    int8_onnx, option, tmp_path, capsys
):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", str(int8_onnx), "--profile", "--runs", "3", option, str(tmp_path)])
    assert stopped.value.code == 4
    captured = capsys.readouterr()
    assert f"Could not write {tmp_path}: it is a folder." in " ".join(captured.err.split())
    assert captured.out == ""


def test_two_documents_need_two_files(int8_onnx, tmp_path, capsys):
    both = str(tmp_path / "both.json")
    with pytest.raises(SystemExit) as stopped:
        main(["bench", str(int8_onnx), "--trace", both, "--json", both])
    assert stopped.value.code == 2
    assert "both" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_tflite_cannot_be_profiled(exported_to):
    with pytest.raises(UsageError, match="does not report the times of operators"):
        profile(exported_to("tflite", "v1").path)
