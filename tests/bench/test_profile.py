"""Profiles of real artifacts; operators cut out of a `.pte` compute what they do within it."""

import json
import math
import sys
from dataclasses import replace

import networks
import numpy as np
import pytest
import torch

from mobiledeploy.bench.chrome_trace import to_chrome_trace
from mobiledeploy.bench.profile import OperatorTime, Profile, profile
from mobiledeploy.bench.xnnpack_operators import (
    as_program,
    delegate_graphs,
    empty_operator,
    read_graph,
    single_operators,
)
from mobiledeploy.cli import main
from mobiledeploy.errors import ArtifactError, UsageError
from mobiledeploy.inspect.inspect_artifact import inspect_artifact
from mobiledeploy.runtimes.executorch import SingleOperatorRunner
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.utils.quiet import quietly


def test_operators_one_after_the_other_are_the_network(exported_to):
    """Weights, encodings, flags and order: all of them are right, or this is not."""
    artifact = exported_to("pte", "v3-small", 64)
    image = networks.pixels(64, count=1, seed=3)
    with open_runner(artifact.path) as runner:
        expected = runner.run({"input": image})["logits"]
    operators = list(single_operators(artifact.path))
    values = {operators[0].reads[0]: torch.from_numpy(image)}
    for operator in operators:
        alone = SingleOperatorRunner(operator.name, operator.program, operator.inputs, threads=1)
        results = alone._method(tuple(values[number] for number in operator.reads))
        values |= dict(zip(operator.writes, results, strict=True))
    (last,) = operators[-1].writes
    np.testing.assert_array_equal(values[last].numpy(), expected)


def test_a_delegate_taken_out_and_put_back_is_the_network(exported_to, tmp_path):
    artifact = exported_to("pte", "v3-small", 64)
    image = networks.pixels(64, count=1, seed=3)
    ((graph, constants),) = delegate_graphs(artifact.path)
    path = tmp_path / "again.pte"
    path.write_bytes(as_program(read_graph(graph), constants))
    with open_runner(artifact.path) as one, open_runner(path) as other:
        logits = [runner.run({"input": image})["logits"] for runner in (one, other)]
    assert logits[0].std() > 0
    np.testing.assert_array_equal(*logits)


def test_an_operator_reads_its_input_where_it_is(exported_to, tmp_path):
    """A copy, made by the runtime before each run, would be timed with the operator."""
    artifact = exported_to("pte", "v3-small", 64)
    pooling = next(o for o in single_operators(artifact.path) if "Pooling" in o.kind)
    ((_, shape),) = pooling.inputs
    (path := tmp_path / "pooling.pte").write_bytes(pooling.program)
    assert inspect_artifact(path).planned_memory_bytes < math.prod(shape)


@pytest.fixture
def ticking(monkeypatch):
    """A clock by which the whole network takes 50 us, an empty call 2 and the n-th operator n more.

    The real one has other programs in it, which may cost more than a small operator.
    """
    numbers = {}

    def elapsed_us(run):
        run()
        runner = getattr(run, "__self__", None)
        return 50.0 if runner is None else 2.0 + numbers.setdefault(id(runner), len(numbers))

    monkeypatch.setattr(sys.modules[profile.__module__], "_elapsed_us", elapsed_us)


@pytest.mark.usefixtures("ticking")
def test_what_an_empty_call_takes_is_taken_off_every_operator(int8_pte):
    assert empty_operator().inputs == (("float32", (1,)),)
    found = profile(int8_pte, runs=20)
    assert sum(o.kind == "XNNConv2d" for o in found.operators) == 2
    assert [o.median_us for o in found.operators] == list(range(1, len(found.operators) + 1))
    assert found.whole_us == 50
    assert "2.0 us for the call" in found.method


@pytest.mark.parametrize(
    ("artifact", "kinds"),
    [
        ("int8_onnx", {"QLinearConv": 3, "QLinearAdd": 1, "QuantizeLinear": 1}),
        ("int8_pte", {"XNNConv2d": 2, "XNNDepthwiseConv2d": 1, "XNNAdd": 1}),
    ],
)
@pytest.mark.usefixtures("ticking")  # of a .pte; ONNX Runtime has a clock of its own
def test_every_operator_is_there_and_shares_add_up(artifact, kinds, request):
    found = profile(request.getfixturevalue(artifact), runs=3)
    counted = {kind.kind: kind.count for kind in found.by_kind()}
    assert kinds.items() <= counted.items()
    assert sum(counted.values()) == len(found.operators)
    assert sum(kind.share for kind in found.by_kind()) == pytest.approx(1)
    assert found.sum_us > 0
    assert all(operator.kind.removeprefix("XNN") in operator.name for operator in found.operators)
    # timed in turn with the operators: no factor lies between them, whatever else runs
    assert found.sum_us / 20 < found.whole_us < found.sum_us * 20
    totals = [kind.total_us for kind in found.by_kind()]
    assert totals == sorted(totals, reverse=True)


def test_what_cannot_be_profiled_is_told(portable_pte, int8_pte):
    with pytest.raises(ArtifactError, match="no operator that could be timed"):
        profile(portable_pte, runs=2)
    with pytest.raises(UsageError):
        profile(int8_pte, runs=0)


def test_activations_that_no_program_could_take_are_told(tmp_path):
    """Half precision, which XNNPACK computes and the wheels' Python cannot time here."""
    with quietly():
        from mobiledeploy.export import executorch as to_executorch

    module = torch.nn.Conv2d(3, 4, 3).half().eval()
    program = torch.export.export(module, (torch.zeros(1, 3, 8, 8, dtype=torch.half),))
    path = tmp_path / "half.pte"
    path.write_bytes(to_executorch.encode(program, {}))
    with pytest.raises(ArtifactError, match=r"datatype 2; .* float32"):
        list(single_operators(path))


TWO = Profile(
    artifact="folder/net.pte",
    runtime="executorch 1",
    method="alone",
    threads=1,
    whole_us=9.0,
    operators=(
        OperatorTime(name="a", kind="Conv", median_us=3.0),
        OperatorTime(name="b", kind="Add", median_us=1.0),
        OperatorTime(name="c", kind="Conv", median_us=4.0),
    ),
)


def test_a_trace_lays_operators_end_to_end_and_artifacts_apart():
    document = to_chrome_trace([TWO, replace(TWO, artifact="other.onnx")])
    events = document["traceEvents"]
    spans = [(e["pid"], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    one = [("a", 0.0, 3.0), ("b", 3.0, 1.0), ("c", 4.0, 4.0)]
    assert spans == [(pid, *span) for pid in (0, 1) for span in one]
    names = [e["args"]["name"] for e in events if e["ph"] == "M"]
    assert [name.split()[0] for name in names] == ["net.pte", "other.onnx"]


def test_kinds_are_summed_and_sorted():
    assert [(k.kind, k.count, k.total_us, k.share) for k in TWO.by_kind()] == [
        ("Conv", 2, 7.0, 7 / 8),
        ("Add", 1, 1.0, 1 / 8),
    ]


def test_the_command_prints_tables_and_writes_both_documents(int8_onnx, tmp_path, capsys):
    result, trace = tmp_path / "profile.json", tmp_path / "trace.json"
    arguments = ["bench", str(int8_onnx), "--profile", "--runs", "3"]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--json", str(result), "--trace", str(trace)])
    assert not stopped.value.code
    shown = capsys.readouterr().err
    assert "QLinearConv" in shown
    assert "%" in shown
    (entry,) = json.loads(result.read_text())["profiles"]
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
def test_the_command_leaves_no_option_out_of_account(
    int8_onnx, options, named, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["bench", str(int8_onnx), *options])
    assert stopped.value.code == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--json", "--trace"])
def test_a_document_that_cannot_be_written_is_told_before_anything_is_timed(
    int8_onnx, option, tmp_path, capsys
):
    with pytest.raises(SystemExit) as stopped:
        main(["bench", str(int8_onnx), "--profile", "--runs", "3", option, str(tmp_path)])
    assert stopped.value.code == 4
    told = capsys.readouterr().err
    assert f"Could not write {tmp_path}: it is a folder." in " ".join(told.split())
    assert "QLinearConv" not in told


def test_the_command_writes_two_documents_to_two_files(int8_onnx, tmp_path, capsys):
    both = str(tmp_path / "both.json")
    with pytest.raises(SystemExit) as stopped:
        main(["bench", str(int8_onnx), "--trace", both, "--json", both])
    assert stopped.value.code == 2
    assert "both" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
