"""Artifacts of unknown origin are tried in a process of their own, once."""

import shutil

import onnx
import pytest

from mobiledeploy.errors import ArtifactError
from mobiledeploy.runtimes import trial
from mobiledeploy.runtimes.trial import remember_tried, require_runnable
from mobiledeploy.utils.files import CACHE_VARIABLE


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def artifact(float_onnx, tmp_path):
    return shutil.copy(float_onnx, tmp_path / "a.onnx")


@pytest.fixture
def calls(monkeypatch):
    """The artifacts that were tried; they are loaded in this process."""
    found = []

    def call(function, path):
        found.append(path)
        return function(path)

    monkeypatch.setattr(trial, "call_isolated", call)
    return found


def test_an_artifact_is_tried_once(artifact, calls):
    require_runnable(artifact)
    require_runnable(artifact)
    assert calls == [artifact]


def test_other_bytes_are_tried_again(artifact, calls):
    require_runnable(artifact)
    artifact.write_bytes(artifact.read_bytes() + b"\x22\x00")  # an empty field
    require_runnable(artifact)
    assert len(calls) == 2


def test_another_version_of_the_runtime_tries_again(artifact, calls, monkeypatch):
    require_runnable(artifact)
    monkeypatch.setattr(trial, "version", lambda _: "999")
    require_runnable(artifact)
    assert len(calls) == 2


def test_what_was_exported_here_is_not_tried(artifact, calls):
    remember_tried(artifact)
    require_runnable(artifact)
    assert calls == []


def test_an_artifact_with_weights_in_another_file_is_always_tried(artifact, calls):
    artifact.with_name("a.onnx.data").touch()
    require_runnable(artifact)
    require_runnable(artifact)
    assert len(calls) == 2


def test_a_cache_that_cannot_be_written_only_costs_another_trial(artifact, calls, cache):
    cache.write_text("a file")
    require_runnable(artifact)
    require_runnable(artifact)
    assert len(calls) == 2


@pytest.mark.usefixtures("calls")
def test_an_artifact_that_does_not_run_on_its_own_shape_is_refused(artifact, cache):
    model = onnx.load(artifact)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 4
    onnx.save(model, artifact)
    with pytest.raises(ArtifactError, match=r"a\.onnx"):
        require_runnable(artifact)
    assert not (cache / "tried").exists()


@pytest.mark.usefixtures("calls")
def test_an_input_beyond_the_memory_is_refused(artifact):
    model = onnx.load(artifact)
    for dim in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[dim].dim_value = 1 << 30
    onnx.save(model, artifact)
    with pytest.raises(ArtifactError):
        require_runnable(artifact)


def test_a_runtime_that_crashes_is_an_artifact_error(artifact, monkeypatch, tmp_path):
    """ONNX Runtime aborts the process, as a native library may."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "import onnxruntime, os\nonnxruntime.InferenceSession = lambda *_, **__: os.abort()\n"
    )
    with pytest.raises(ArtifactError, match=r"a\.onnx cannot be used: .*SIGABRT"):
        require_runnable(artifact)


def test_a_file_that_crashes_litert_is_refused(repository):
    """The fuzzer found it: LiteRT 2.3 aborts."""
    path = repository / "fuzz" / "corpus" / "tflite" / "de240afcaf7e.tflite"
    with pytest.raises(ArtifactError, match=r"de240afcaf7e\.tflite"):
        require_runnable(path)
