"""A function in a process of its own: results, errors, crashes, and limits."""

import importlib
import os
import signal
import sys
import tempfile
import time

import numpy as np
import pytest

from mobiledeploy.errors import ArtifactError, DataError, RuntimeFailedError
from mobiledeploy.utils.isolated import call_isolated


def name_of(path):
    sys.stdout.write("a banner of a library\n")
    return path.name, os.getpid()


def refuse(path):
    raise DataError(f"{path} is empty.", remedy="Fill it.")


def crash(path):
    sys.stderr.write(f"about to read {path.name}\n")
    sys.stderr.flush()
    os.kill(os.getpid(), signal.SIGSEGV)


def crash_at_exit(path):
    import atexit

    atexit.register(os.abort)
    return path.name


def leave(_path):
    os._exit(7)


def leave_files(_path):
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    os.abort()


def fail(_path):
    raise KeyError("x")


def sleep(_path):
    time.sleep(60)


def use_up_the_processor_time(_path):
    os.kill(os.getpid(), signal.SIGXCPU)  # as the kernel does at RLIMIT_CPU


def wait_longer_than_the_limit(path):
    time.sleep(1.5)
    return path.name


def import_what_is_not_there(_path):
    importlib.import_module("mobiledeploy.no_such_module")


def allocate(_path):
    np.ones(2**40)


@pytest.fixture
def artifact(tmp_path):
    return tmp_path / "a.onnx"


def test_the_result_comes_from_another_process(artifact, capfd):
    name, process = call_isolated(name_of, artifact)
    assert name == "a.onnx"
    assert process != os.getpid()
    assert capfd.readouterr() == ("", "")


def test_an_error_keeps_its_class_and_remedy(artifact):
    with pytest.raises(DataError) as caught:
        call_isolated(refuse, artifact)
    assert (caught.value.message, caught.value.remedy) == (f"{artifact} is empty.", "Fill it.")


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (crash, r"was ended by SIGSEGV \(about to read a.onnx\)"),
        (leave, "ended with code 7"),
        (fail, r"ended with code 1 \(KeyError: 'x'\)"),
        (sleep, "took more than 2 s"),
        (use_up_the_processor_time, "took too much processor time"),
        (allocate, "Out of memory: Unable to allocate"),
    ],
)
def test_every_other_end_is_an_artifact_error(function, how, artifact):
    with pytest.raises(ArtifactError, match=how) as caught:
        call_isolated(function, artifact, limit_s=0.4 if function is sleep else 60)
    assert "a.onnx cannot be used" in caught.value.message


def test_only_processor_time_counts_up_to_the_limit(artifact):
    assert call_isolated(wait_longer_than_the_limit, artifact, limit_s=1) == "a.onnx"


def test_modules_that_cannot_be_imported_are_no_fault_of_the_artifact(artifact):
    with pytest.raises(RuntimeFailedError, match=r"No module named 'mobiledeploy\.no_such_module'"):
        call_isolated(import_what_is_not_there, artifact)


def test_a_damaged_installation_is_no_fault_of_the_artifact(artifact, tmp_path, monkeypatch):
    """As where its files are being changed while a command runs."""
    (tmp_path / "mobiledeploy").mkdir()
    (tmp_path / "mobiledeploy" / "__init__.py").write_text("def broken(:")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(RuntimeFailedError, match=r"before it began \(SyntaxError: invalid syntax"):
        call_isolated(name_of, artifact)


def test_a_crash_after_the_work_does_not_matter(artifact):
    assert call_isolated(crash_at_exit, artifact) == "a.onnx"


def test_temporary_files_of_a_crash_are_removed(artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ArtifactError, match="SIGABRT"):
        call_isolated(leave_files, artifact)
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_that_cannot_be_made_is_no_fault_of_the_artifact(artifact, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(artifact / "missing"))
    with pytest.raises(RuntimeFailedError, match="temporary files"):
        call_isolated(name_of, artifact)


def test_modules_of_the_current_folder_are_not_imported(artifact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part])
    (tmp_path / "pickle.py").write_text("raise RuntimeError('imported')")
    assert call_isolated(name_of, artifact)[0] == "a.onnx"
