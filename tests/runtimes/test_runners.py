"""Runners of all runtimes: results, descriptions, threads, and inputs that they refuse."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from manifests import document

from mobiledeploy.devices.agent.runtimes import executorch_bindings
from mobiledeploy.errors import ArtifactError, RuntimeFailedError, UsageError
from mobiledeploy.runtimes.executorch import ExecuTorchRunner
from mobiledeploy.runtimes.onnxruntime import OnnxRuntimeRunner, save_optimized
from mobiledeploy.runtimes.open import check_artifact, open_runner
from mobiledeploy.runtimes.pytorch import EagerRunner
from mobiledeploy.utils.files import sha256_of

FLOAT_ARTIFACTS = ["float_onnx", "fixed_batch_onnx", "float_pte", "portable_pte"]


@pytest.fixture
def expected(small_module, images):
    with torch.inference_mode():
        return small_module(torch.from_numpy(images)).numpy()


@pytest.fixture
def artifact(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("artifact", FLOAT_ARTIFACTS, indirect=True)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_runtime_matches_pytorch(artifact, threads, images, expected):
    with open_runner(artifact, threads=threads) as runner:
        result = runner.run({"input": images[:2]})
        assert runner.threads == threads
    assert list(result) == ["logits"]
    assert result["logits"].dtype == np.float32
    np.testing.assert_allclose(result["logits"], expected[:2], atol=1e-5)


@pytest.mark.parametrize("artifact", ["float_onnx", "float_pte"], indirect=True)
@pytest.mark.parametrize("opened", [open_runner, check_artifact])
def test_a_path_that_is_not_utf8_is_refused(artifact, opened, tmp_path):
    renamed = tmp_path / (os.fsdecode(b"caf\xe9") + artifact.suffix)
    renamed.write_bytes(artifact.read_bytes())
    with pytest.raises(UsageError, match=r"caf\\xe9\.(onnx|pte)' is not UTF-8"):
        opened(renamed)


@pytest.mark.parametrize("optimize", [True, False])
def test_onnx_matches_pytorch_with_and_without_optimizations(
    float_onnx, optimize, images, expected
):
    with open_runner(float_onnx, optimize=optimize) as runner:
        np.testing.assert_allclose(runner.run({"input": images})["logits"], expected, atol=1e-5)


def test_without_optimizations_the_graph_runs_as_written(float_onnx, tmp_path):
    def operators(**options):
        save_optimized(float_onnx, tmp_path / "ran.onnx", **options)
        return [node.op_type for node in onnx.load(tmp_path / "ran.onnx").graph.node]

    written = [node.op_type for node in onnx.load(float_onnx).graph.node]
    assert operators(optimize=False) == written
    assert operators() != written


@pytest.mark.parametrize("optimize", [True, False])
def test_optimizations_can_be_switched_off(float_onnx, optimize):
    from onnxruntime import GraphOptimizationLevel

    with OnnxRuntimeRunner(float_onnx, optimize=optimize) as runner:
        level = runner._session.get_session_options().graph_optimization_level
    assert (level == GraphOptimizationLevel.ORT_DISABLE_ALL) is not optimize


def test_a_pte_runs_sample_by_sample(float_pte, images):
    with open_runner(float_pte) as runner:
        assert runner.batch_size == 1
        stacked = runner.run({"input": images})["logits"]
        single = [runner.run({"input": image[None]})["logits"] for image in images]
    np.testing.assert_array_equal(stacked, np.concatenate(single))


def test_outputs_are_not_overwritten_by_the_next_run(float_pte, images):
    with open_runner(float_pte) as runner:
        first = runner.run({"input": images[:1]})["logits"]
        kept = first.copy()
        runner.run({"input": images[1:2]})
    np.testing.assert_array_equal(first, kept)


def test_an_onnx_with_a_symbolic_batch_has_no_batch_size(float_onnx):
    with open_runner(float_onnx) as runner:
        assert runner.batch_size is None


def test_a_fixed_batch_takes_only_its_multiples(fixed_batch_onnx, images):
    with open_runner(fixed_batch_onnx) as runner:
        assert runner.batch_size == 2
        four = runner.run({"input": np.concatenate([images[:2], images[:2]])})["logits"]
        np.testing.assert_array_equal(four[:2], four[2:])
        with pytest.raises(RuntimeFailedError, match="takes 2 samples at a time; it was given 3"):
            runner.run({"input": images})


@pytest.mark.parametrize(
    ("artifact", "runtime", "version"),
    [
        ("float_onnx", "onnxruntime", __import__("onnxruntime").__version__),
        (
            "float_pte",
            "executorch",
            __import__("importlib.metadata").metadata.version("executorch"),
        ),
    ],
    indirect=["artifact"],
)
def test_a_runner_reports_runtime_version_and_input_shape(artifact, runtime, version):
    with open_runner(artifact) as runner:
        assert (runner.runtime, runner.version) == (runtime, version)
        assert runner.input_shape == (3, 32, 32)


@pytest.mark.parametrize("artifact", ["float_onnx", "float_pte"], indirect=True)
def test_metadata_and_labels_are_read_back(artifact):
    with open_runner(artifact) as runner:
        assert runner.metadata == {"name": "small", "input": {"mean": [0.5, 0.25, 0.125]}}
        assert runner.labels == ("tench", "goldfish", "öre")


@pytest.mark.ci
@pytest.mark.parametrize("artifact", ["fixed_batch_onnx", "int8_pte"], indirect=True)
def test_artifacts_of_other_exporters_have_no_metadata(artifact):
    with open_runner(artifact) as runner:
        assert (runner.metadata, runner.labels) == ({}, ())


@pytest.mark.parametrize("artifact", ["float_onnx", "float_pte"], indirect=True)
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"image": np.zeros((1, 3, 32, 32), np.float32)}, "one input, 'input'; .* \\['image'\\]"),
        ({}, "one input, 'input'; .* \\[\\]"),
        ({"input": np.zeros((1, 3, 32, 32), np.float64)}, "takes float32; .* float64"),
        ({"input": np.zeros((1, 3, 16, 32), np.float32)}, r"\(N, 3, 32, 32\).*\(1, 3, 16, 32\)"),
        ({"input": np.zeros((0, 3, 32, 32), np.float32)}, r"N > 0; .*\(0, 3, 32, 32\)"),
        ({"input": np.zeros((3, 32, 32), np.float32)}, r"given \(3, 32, 32\)"),
    ],
)
def test_wrong_inputs_are_refused(artifact, inputs, message):
    with open_runner(artifact) as runner, pytest.raises(RuntimeFailedError, match=message):
        runner.run(inputs)


@pytest.mark.parametrize("artifact", ["float_onnx", "float_pte"], indirect=True)
def test_read_only_and_strided_inputs_are_accepted(artifact, images):
    mirrored = images[:, ::-1]
    frozen = images.copy()
    frozen.flags.writeable = False
    with open_runner(artifact) as runner:
        np.testing.assert_array_equal(
            runner.run({"input": mirrored})["logits"],
            runner.run({"input": mirrored.copy()})["logits"],
        )
        np.testing.assert_array_equal(
            runner.run({"input": frozen})["logits"], runner.run({"input": images})["logits"]
        )


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_onnx_runtime_starts_the_requested_threads(float_onnx):
    def threads_started(count):
        before = len(list(Path("/proc/self/task").iterdir()))
        with open_runner(float_onnx, threads=count):
            return len(list(Path("/proc/self/task").iterdir())) - before

    # The calling thread computes as well.
    assert threads_started(1) == 0
    assert threads_started(3) == 2


def test_executorch_uses_the_requested_threads(float_pte):
    bindings = executorch_bindings()
    for threads in (3, 1):
        with open_runner(float_pte, threads=threads):
            assert bindings._threadpool_get_thread_count() == threads


def test_executorch_keeps_the_thread_pool_of_open_runners(float_pte):
    with (
        open_runner(float_pte, threads=1),
        open_runner(float_pte, threads=1),
        pytest.raises(RuntimeFailedError, match="2 open runners use 1 threads, so another"),
    ):
        open_runner(float_pte, threads=2)
    with open_runner(float_pte, threads=2) as runner:
        assert runner.threads == 2


def test_a_closed_runner_releases_the_thread_pool(float_pte):
    with open_runner(float_pte, threads=1) as kept:
        pass
    with open_runner(float_pte, threads=2) as runner:
        assert (kept.threads, runner.threads) == (1, 2)


def test_a_garbage_collected_runner_releases_the_thread_pool(float_pte):
    open_runner(float_pte, threads=1)
    with open_runner(float_pte, threads=2) as runner:
        assert runner.threads == 2


def test_executorch_keeps_its_program_alive(float_pte, images):
    import gc

    runner = ExecuTorchRunner(float_pte)
    gc.collect()
    again = runner.run({"input": images})["logits"]
    np.testing.assert_array_equal(again, runner.run({"input": images})["logits"])


def test_runners_report_whether_they_are_thread_safe(float_onnx, float_pte, small_module):
    with (
        open_runner(float_onnx) as onnx_runner,
        open_runner(float_pte) as pte_runner,
        EagerRunner(small_module) as eager,
    ):
        found = [runner.thread_safe for runner in (onnx_runner, pte_runner, eager)]
    assert found == [True, False, True]


def test_zero_threads_are_a_usage_error(float_onnx):
    with pytest.raises(UsageError, match="threads is 0; expected at least 1"):
        open_runner(float_onnx, threads=0)


def test_a_pte_cannot_run_unoptimized(float_pte):
    with pytest.raises(UsageError, match="cannot be switched off"):
        open_runner(float_pte, optimize=False)


def test_eager_runs_modules_and_exported_programs(small_module, exported, images, expected):
    with EagerRunner(small_module) as runner:
        assert (runner.runtime, runner.batch_size) == ("torch", None)
        np.testing.assert_allclose(runner.run({"input": images})["logits"], expected, atol=1e-6)
    with EagerRunner(exported) as runner:
        assert (runner.batch_size, runner.input_shape) == (1, (3, 32, 32))
        np.testing.assert_allclose(runner.run({"input": images})["logits"], expected, atol=1e-6)


def test_eager_runs_an_exported_program_with_a_symbolic_batch(small_module, images, expected):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(
        small_module, (torch.from_numpy(images),), dynamic_shapes=({0: batch},)
    )
    with EagerRunner(program) as runner:
        assert runner.batch_size is None
        np.testing.assert_allclose(runner.run({"input": images})["logits"], expected, atol=1e-6)


def test_eager_restores_the_number_of_threads(small_module, images):
    before = torch.get_num_threads()
    seen = []
    hook = small_module.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    try:
        with EagerRunner(small_module, threads=before + 1) as runner:
            runner.run({"input": images})
    finally:
        hook.remove()
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_a_failing_module_is_a_runtime_failure(images):
    with (
        EagerRunner(torch.nn.Linear(3, 4)) as runner,
        pytest.raises(RuntimeFailedError, match="PyTorch failed"),
    ):
        runner.run({"input": images})


def test_an_onnx_with_another_input_name_is_refused(float_onnx, tmp_path):
    model = onnx.load(float_onnx)
    model.graph.input[0].name = "image"
    model.graph.node[0].input[0] = "image"
    path = tmp_path / "foreign.onnx"
    onnx.save(model, path)
    with pytest.raises(ArtifactError, match=r"inputs \['image'\].*expected one 'input'"):
        open_runner(path)


class TwoInputs(torch.nn.Module):
    def forward(self, a, b):
        return a + b


class TwoOutputs(torch.nn.Module):
    def forward(self, x):
        return x + 1, x + 2


class Double(torch.nn.Module):
    def forward(self, x):
        return 2 * x


class PicksARow(torch.nn.Module):
    """Fails if the first pixel is not a valid row."""

    def __init__(self):
        super().__init__()
        self.register_buffer("rows", torch.zeros(4, 10))

    def forward(self, x):
        return torch.index_select(self.rows, 0, x[:, 0, 0, 0].long())


def portable(module, inputs, path):
    """Write a `.pte` without delegates."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from executorch.exir import to_edge

        path.write_bytes(to_edge(torch.export.export(module, inputs)).to_executorch().buffer)
    return path


IMAGE = torch.zeros(1, 3, 4, 4)


@pytest.mark.parametrize(
    ("module", "inputs"),
    [
        (TwoInputs(), (IMAGE, IMAGE)),
        (TwoOutputs(), (IMAGE,)),
        (Double(), (IMAGE.long(),)),
        (torch.nn.Linear(4, 2), (torch.zeros(1, 4),)),
    ],
    ids=["two inputs", "two outputs", "integers", "no image"],
)
def test_a_pte_with_another_signature_is_refused(module, inputs, tmp_path):
    path = portable(module, inputs, tmp_path / "foreign.pte")
    with pytest.raises(
        ArtifactError, match=r"foreign\.pte: 'forward' takes .* expected one float32"
    ):
        open_runner(path)


def test_a_failing_pte_is_a_runtime_failure(tmp_path):
    path = portable(PicksARow(), (IMAGE,), tmp_path / "fails.pte")
    with open_runner(path) as runner:
        assert runner.run({"input": IMAGE.numpy() + 3})["logits"].shape == (1, 10)
        with pytest.raises(RuntimeFailedError, match=r"ExecuTorch failed while running .*fails"):
            runner.run({"input": IMAGE.numpy() + 4})


def test_a_failing_onnx_is_a_runtime_failure(tmp_path, images):
    node = onnx.helper.make_node("Reshape", ["input", "shape"], ["logits"])
    shape = onnx.numpy_helper.from_array(np.array([7, 11], np.int64), "shape")
    image = onnx.helper.make_tensor_value_info("input", 1, ["batch", 3, 32, 32])
    logits = onnx.helper.make_tensor_value_info("logits", 1, [7, 11])
    graph = onnx.helper.make_graph([node], "bad", [image], [logits], [shape])
    path = tmp_path / "fails.onnx"
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10
        ),
        path,
    )
    with open_runner(path) as runner, pytest.raises(RuntimeFailedError, match=r"fails\.onnx"):
        runner.run({"input": images})


def test_an_artifact_that_its_manifest_does_not_describe_is_refused(float_onnx, tmp_path):
    path = tmp_path / "a.onnx"
    path.write_bytes(float_onnx.read_bytes())
    check_artifact(path)
    beside = tmp_path / "a.onnx.json"
    beside.write_text(json.dumps(document(artifact={"sha256": sha256_of(path)})))
    check_artifact(path)
    path.write_bytes(path.read_bytes().replace(b"small", b"smell"))
    with pytest.raises(ArtifactError, match="not the file that its manifest describes"):
        check_artifact(path)
    beside.write_text("{}")
    check_artifact(path)  # a manifest that cannot be read says nothing about the artifact
