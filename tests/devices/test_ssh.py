"""Over a real ssh server: what works, and what users see when it does not."""

import os
import sys

import numpy as np
import pytest

from mobiledeploy.bench.measure import measure
from mobiledeploy.devices.open import open_device, run_artifact
from mobiledeploy.devices.ssh import target_of
from mobiledeploy.errors import UsageError


def test_a_session_over_ssh_computes_what_this_machine_does(ssh, float_onnx, images):
    with open_device(ssh.uri, python=sys.executable) as device:
        there = run_artifact(device, float_onnx, images)
        assert device.host.place == ssh.uri
        assert device.host.cores == len(os.sched_getaffinity(0))
    with open_device() as here:
        assert np.array_equal(there, run_artifact(here, float_onnx, images))


def test_an_alias_of_the_user_s_configuration_is_enough(ssh):
    with open_device("ssh://pi", python=sys.executable) as device:
        assert device.host.runtimes["onnxruntime"]
    assert ssh.folder


def test_a_bench_over_ssh_goes_through_one_connection(ssh, float_onnx):
    log = ssh.folder / "log"
    before = log.read_text().count("Accepted publickey")
    with open_device(ssh.uri, python=sys.executable) as device:
        [found] = measure([float_onnx], device=device, runs=6, warmup=1)
    assert len(found.times_ms) == 6
    assert (found.outputs.differing, found.outputs.values) == (0, 3 * 2 * 10)
    assert found.device.startswith(f"{ssh.uri} (")
    assert log.read_text().count("Accepted publickey") == before + 1


@pytest.mark.parametrize("name", ["python 'x'", 'a "b" $HOME `id`', "öre;exit 9"])
def test_an_interpreter_s_path_may_hold_anything(ssh, name, tmp_path):
    python = tmp_path / name
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    with open_device(ssh.uri, python=str(python)) as device:
        assert device.host.architecture


def test_without_a_path_our_own_environment_goes_before_the_system_s_python(ssh, monkeypatch):
    """Its place is in the home of the user over there: this one's, on loopback."""
    monkeypatch.setattr("mobiledeploy.devices.ssh.ENVIRONMENT", "~/none")
    with open_device(ssh.uri) as device:
        system = device.host
    assert system.place == ssh.uri


@pytest.mark.parametrize(
    ("uri", "arguments"),
    [
        ("ssh://pi", ["pi"]),
        ("ssh://me@Pi", ["-l", "me", "Pi"]),
        ("ssh://pi:2222/", ["-p", "2222", "pi"]),
        ("ssh://me@[::1]:22", ["-l", "me", "-p", "22", "::1"]),
    ],
)
def test_a_uri_becomes_ssh_s_arguments(uri, arguments):
    assert target_of(uri) == arguments


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
def test_what_is_not_a_machine_is_a_usage_error(uri):
    with pytest.raises(UsageError, match=r"expected ssh://\[user@\]host\[:port\]"):
        target_of(uri)
