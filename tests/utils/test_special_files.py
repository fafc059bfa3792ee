"""Pipes, sockets and devices are refused at once wherever a file is read."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mobiledeploy.artifact.manifest import parse_manifest
from mobiledeploy.bench.history import require_appendable
from mobiledeploy.bench.json_report import TimesResult, read_result
from mobiledeploy.checkpoints.read import read_checkpoint
from mobiledeploy.data.arrays import read_arrays
from mobiledeploy.data.folder import find_images
from mobiledeploy.data.labels import load_labels
from mobiledeploy.diff.open_artifact import open_artifact
from mobiledeploy.errors import (
    ArtifactError,
    DataError,
    LoadError,
    RuntimeFailedError,
    WeightsError,
)
from mobiledeploy.evaluation.evaluate import read_evaluation
from mobiledeploy.models.config import read_config
from mobiledeploy.models.run_code import source_file
from mobiledeploy.parity.baseline import read_baseline
from mobiledeploy.sweep.points import read_grid
from mobiledeploy.utils.files import require_artifact, require_regular, require_writable_files


@pytest.fixture(autouse=True)
def alarm():
    """End a test that waits for ever: a pipe that is opened waits for its writer."""
    signal.alarm(60)
    yield
    signal.alarm(0)


READERS = {
    "labels": (lambda path: load_labels(path, 10), DataError),
    "config": (read_config, LoadError),
    "grid": (read_grid, LoadError),
    "npz": (lambda path: read_arrays(path, 3), DataError),
    "images": (lambda path: find_images(path.parent), DataError),
    "checkpoint": (read_checkpoint, WeightsError),
    "artifact": (require_artifact, ArtifactError),
    "manifest": (parse_manifest, ArtifactError),
    "manifest alone": (open_artifact, ArtifactError),
    "bench result": (lambda path: read_result(path, TimesResult), ArtifactError),
    "evaluation": (read_evaluation, DataError),
    "parity baseline": (read_baseline, DataError),
    "code": (lambda path: source_file(str(path)), LoadError),
}
NAMES = {"images": "a.jpg", "checkpoint": "a.pth", "manifest alone": "a.json", "code": "a.py"}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_pipe_at_once(tmp_path, reader):
    read, error = READERS[reader]
    path = tmp_path / NAMES.get(reader, "file")
    os.mkfifo(path)
    with pytest.raises(error, match="is a named pipe; expected a regular file"):
        read(path)


def test_sockets_and_links_to_devices_are_named(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "a.jpg"))
        with pytest.raises(DataError, match="is a socket"):
            find_images(tmp_path)
    (tmp_path / "a.jpg").unlink()
    (tmp_path / "b.jpg").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="is a character device"):
        find_images(tmp_path)


def test_ordinary_files_folders_and_missing_files_pass(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing", tmp_path / "file" / "below"):
        require_regular(path, DataError)


def test_an_artifact_without_a_byte_is_empty_and_not_damaged(tmp_path):
    (tmp_path / "net.onnx").touch()
    with pytest.raises(ArtifactError, match=r"net\.onnx is empty"):
        require_artifact(tmp_path / "net.onnx")
    (tmp_path / "net.onnx").write_text("x")
    require_artifact(tmp_path / "net.onnx")


@pytest.mark.parametrize("reader", READERS)
def test_a_name_that_is_too_long_is_an_error_of_the_reader(tmp_path, reader):
    read, error = READERS[reader]
    path = tmp_path / f"{'n' * 300}{Path(NAMES.get(reader, 'file')).suffix}"
    if reader == "images":
        path /= "a.jpg"
    with pytest.raises(error, match="File name too long"):
        read(path)


def test_a_name_that_is_too_long_is_an_error_of_outputs(tmp_path):
    with pytest.raises(RuntimeFailedError, match="File name too long"):
        require_appendable(tmp_path / ("n" * 300))
    with pytest.raises(RuntimeFailedError, match="File name too long"):
        require_writable_files(tmp_path / ("n" * 300))


@pytest.mark.ci
@pytest.mark.parametrize("option", ["--labels", "--config", "--calib-data", "--weights"])
def test_export_ends_at_once_with_the_documented_code(tmp_path, option):
    path = tmp_path / "pipe.pth"
    os.mkfifo(path)
    model = [] if option == "--config" else ["v2"]
    weights = [] if option == "--weights" else ["--weights", "random"]
    weights += ["--int8"] if option == "--calib-data" else []
    command = [sys.executable, "-m", "mobiledeploy", "export", *model, *weights, option, path]
    done = subprocess.run(
        [*command, "--out", tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "named pipe" in done.stderr) == (3, True), done.stderr
