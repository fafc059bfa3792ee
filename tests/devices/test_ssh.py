"""Devices over a real ssh server."""

import os
import sys

import numpy as np
import pytest

from mobiledeploy.bench.measure import measure
from mobiledeploy.devices.open import open_device, run_artifact
from mobiledeploy.devices.ssh import ssh_arguments
from mobiledeploy.errors import UsageError


def test_an_ssh_device_returns_the_outputs_of_this_machine(ssh, float_onnx, images):
    with open_device(ssh.uri, python=sys.executable) as device:
        there = run_artifact(device, float_onnx, images)
        assert device.host.uri == ssh.uri
        assert device.host.cores == len(os.sched_getaffinity(0))
    with open_device() as here:
        assert np.array_equal(there, run_artifact(here, float_onnx, images))


def test_a_host_alias_of_the_ssh_configuration_works(ssh):
    with open_device("ssh://pi", python=sys.executable) as device:
        assert device.host.runtimes["onnxruntime"]
    assert ssh.folder


def test_bench_uses_one_ssh_connection(ssh, float_onnx):
    log = ssh.folder / "log"
    before = log.read_text().count("Accepted publickey")
    with open_device(ssh.uri, python=sys.executable) as device:
        [found] = measure([float_onnx], device=device, runs=6, warmup=1)
    assert len(found.times_ms) == 6
    assert (found.outputs.differing, found.outputs.values) == (0, 3 * 2 * 10)
    assert found.device.startswith(f"{ssh.uri} (")
    assert log.read_text().count("Accepted publickey") == before + 1


@pytest.mark.parametrize("name", ["python 'x'", 'a "b" $HOME `id`', "öre;exit 9"])
def test_any_interpreter_path_works(ssh, name, tmp_path):
    python = tmp_path / name
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with open_device(ssh.uri, python=str(python)) as device:
        assert device.host.architecture


def test_without_python_option_the_system_python_is_the_fallback(ssh, monkeypatch):
    """The environment would be in the home folder on the device, which is this machine."""
    monkeypatch.setattr("mobiledeploy.devices.ssh.ENVIRONMENT", "~/none")
    with open_device(ssh.uri) as device:
        system = device.host
    assert system.uri == ssh.uri


@pytest.mark.parametrize(
    ("uri", "arguments"),
    [
        ("ssh://pi", ["pi"]),
        ("ssh://me@Pi", ["-l", "me", "Pi"]),
        ("ssh://pi:2222/", ["-p", "2222", "pi"]),
        ("ssh://me@[::1]:22", ["-l", "me", "-p", "22", "::1"]),
    ],
)
def test_a_uri_is_translated_to_ssh_arguments(uri, arguments):
    assert ssh_arguments(uri) == arguments


@pytest.mark.parametrize(
    "uri",
    [
        "ssh://",
        "ssh://me@",
        "ssh://-oProxyCommand=evil",
        "ssh://-oProxyCommand=evil@pi",
        "ssh://me:secret@pi",
        "ssh://pi/home",
        "ssh://pi:port",
    ],
)
def test_invalid_ssh_uris_are_usage_errors(uri):
    with pytest.raises(UsageError, match=r"expected ssh://\[user@\]host\[:port\]"):
        ssh_arguments(uri)
