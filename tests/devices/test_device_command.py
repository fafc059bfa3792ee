"""`mobiledeploy device check` and `mobiledeploy device setup`."""

import io
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mobiledeploy.cli import _run
from mobiledeploy.devices import ssh as ssh_module
from mobiledeploy.devices.host import describe_host
from mobiledeploy.devices.open import open_device
from mobiledeploy.doctor import check_speed, examine_device

HERE = f"exec:{sys.executable}"


def test_device_check_of_a_complete_device(capsys):
    assert _run(["device", "check", HERE, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    states = {check["name"]: check["state"] for check in document["checks"]}
    assert document["able"]
    assert (states[".onnx"], states[".pte"]) == ("ok", "ok")


def test_device_check_of_a_device_without_runtimes_exits_with_4(capsys):
    bare = f"exec:{sys.executable} -S"  # no site-packages
    assert _run(["device", "check", bare]) == 4
    captured = capsys.readouterr()
    output = " ".join((captured.out + captured.err).split())
    assert "numpy, onnxruntime not installed" in output
    assert "can run neither .onnx nor .pte" in output
    assert "device setup" in output


def host(**fields):
    return replace(describe_host(), **fields)


@pytest.mark.parametrize(
    ("runtimes", "onnx", "pte"),
    [
        ({"numpy": "2", "onnxruntime": "1.27.0"}, "ok", "missing"),
        ({"numpy": "2", "executorch": "1.4", "torch": "2"}, "missing", "ok"),
        ({"numpy": "2", "executorch": "1.4", "torch": None}, "missing", "missing"),
        ({"onnxruntime": "1.27.0"}, "missing", "missing"),
    ],
)
def test_each_runtime_is_checked_separately(runtimes, onnx, pte):
    checks = {c.name: c for c in examine_device(host(runtimes=runtimes))}
    assert (checks[".onnx"].state, checks[".pte"].state) == (onnx, pte)


@pytest.mark.parametrize(
    ("conditions", "state", "message"),
    [
        ({}, "ok", ""),
        ({"governor": "performance", "temperature_c": 51.2}, "ok", ""),
        ({"governor": "ondemand"}, "ok", "performance"),
        ({"governor": "performance", "throttled_now": 4}, "broken", "throttles"),
    ],
)
def test_causes_of_unsteady_speed_are_reported(conditions, state, message):
    check = check_speed(host(conditions=conditions))
    assert check.state == state
    assert message in check.remedy
    assert bool(check.remedy) == bool(message)


def test_only_ssh_devices_can_be_set_up_with_python(capsys):
    assert _run(["device", "setup", HERE, "--runner", "python", "--yes"]) == 2
    assert "only ssh devices can" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "options",
    [
        ["--runner", "native", "--litert"],
        ["--runner", "python", "--compiler", "g++"],
        ["--executorch", "--bundle", "runner.tar.gz"],
        ["--python", "python3", "--compiler", "g++"],
    ],
)
def test_options_of_both_runners_exclude_one_another(options, capsys):
    assert _run(["device", "setup", "ssh://pi", *options]) == 2
    assert "Leave one kind of options out." in " ".join(capsys.readouterr().err.split())


def test_another_runner_is_refused(capsys):
    assert _run(["device", "setup", "ssh://pi", "--runner", "ruby"]) == 2
    assert "expected native or python" in capsys.readouterr().err


@pytest.fixture
def own_environment(ssh, monkeypatch):
    """Another place for the environment than the one that this user may have."""
    name = f".cache/mobiledeploy-test-{os.getpid()}"
    monkeypatch.setattr(ssh_module, "ENVIRONMENT", f"~/{name}")
    monkeypatch.setattr(
        ssh_module,
        "_START_PYTHON",
        ssh_module._START_PYTHON.replace(".cache/mobiledeploy/venv", name),
    )
    yield ssh, Path.home() / name
    shutil.rmtree(Path.home() / name, ignore_errors=True)


@pytest.mark.ci
def test_setup_announces_and_creates_the_environment(own_environment, monkeypatch, capsys):
    """numpy is installed, because it is small."""
    server, folder = own_environment
    monkeypatch.setattr(ssh_module, "requirements", lambda **_: ["numpy"])
    assert _run(["device", "setup", server.uri, "--yes", "--python", sys.executable]) == 0
    output = " ".join(capsys.readouterr().err.split())
    assert "create the virtual environment" in output
    assert "install numpy into it" in output
    assert (folder / "bin" / "python").exists()
    with open_device(server.uri) as device:
        assert device.host.runtimes["numpy"]
        assert device.host.runtimes["onnxruntime"] is None


def test_setup_asks_for_confirmation(own_environment, monkeypatch, capsys):
    server, folder = own_environment
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert _run(["device", "setup", server.uri, "--runner", "python"]) == 130
    assert "onnxruntime==" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.ci
def test_a_failed_setup_is_removed(own_environment, monkeypatch, capsys):
    server, folder = own_environment
    monkeypatch.setattr(ssh_module, "requirements", lambda **_: ["./no-such-package"])
    assert _run(["device", "setup", server.uri, "--yes", "--python", sys.executable]) == 4
    output = " ".join(capsys.readouterr().err.split())
    assert "no-such-package" in output
    assert "Traceback" not in output
    assert not folder.exists()


@pytest.mark.parametrize("uri", ["ssh://[::1", "ssh://-oProxyCommand=x", "ssh://"])
def test_setup_refuses_a_wrong_uri_before_it_asks(uri, monkeypatch, capsys):
    monkeypatch.setattr("typer.confirm", lambda *_, **__: pytest.fail("asked"))
    assert _run(["device", "setup", uri, "--runner", "python"]) == 2
    assert _run(["device", "setup", uri]) == 2
    assert "is not an ssh device" in capsys.readouterr().err


def test_setup_without_a_terminal_names_the_option(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert _run(["device", "setup", "ssh://host.invalid", "--runner", "python"]) == 2
    assert "Pass --yes to confirm it." in capsys.readouterr().err
