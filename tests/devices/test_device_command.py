"""`mobiledeploy device`: one screen about a device, and an environment of our own on it."""

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


def test_a_device_that_can_run_both(capsys):
    assert _run(["device", "check", HERE, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    states = {check["name"]: check["state"] for check in document["checks"]}
    assert document["able"]
    assert (states[".onnx"], states[".pte"]) == ("ok", "ok")


def test_a_device_that_can_run_nothing_says_what_to_do(capsys):
    bare = f"exec:{sys.executable} -S"  # no site-packages
    assert _run(["device", "check", bare]) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "numpy, onnxruntime not installed" in said
    assert "can run neither .onnx nor .pte" in said
    assert "device setup" in said


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
def test_each_runtime_is_judged_by_itself(runtimes, onnx, pte):
    checks = {c.name: c for c in examine_device(host(runtimes=runtimes))}
    assert (checks[".onnx"].state, checks[".pte"].state) == (onnx, pte)


@pytest.mark.parametrize(
    ("conditions", "state", "says"),
    [
        ({}, "ok", ""),
        ({"governor": "performance", "temperature_c": 51.2}, "ok", ""),
        ({"governor": "ondemand"}, "ok", "performance"),
        ({"governor": "performance", "throttled_now": 4}, "broken", "slowed down"),
    ],
)
def test_what_makes_its_speed_unsteady_is_told(conditions, state, says):
    check = check_speed(host(conditions=conditions))
    assert check.state == state
    assert says in check.remedy
    assert bool(check.remedy) == bool(says)


def test_only_machines_over_ssh_can_be_set_up(capsys):
    assert _run(["device", "setup", HERE, "--yes"]) == 2
    assert "only machines over ssh can" in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def own_environment(ssh, monkeypatch):
    """A place for the environment that is not the one this user may have."""
    name = f".cache/mobiledeploy-test-{os.getpid()}"
    monkeypatch.setattr(ssh_module, "ENVIRONMENT", f"~/{name}")
    monkeypatch.setattr(
        ssh_module,
        "_START_PYTHON",
        ssh_module._START_PYTHON.replace(".cache/mobiledeploy/venv", name),
    )
    yield ssh, Path.home() / name
    shutil.rmtree(Path.home() / name, ignore_errors=True)


def test_setting_up_says_what_it_does_and_then_is_used(own_environment, monkeypatch, capsys):
    """It installs a package that needs no download of its own size: numpy."""
    server, folder = own_environment
    monkeypatch.setattr(ssh_module, "requirements", lambda **_: ["numpy"])
    assert _run(["device", "setup", server.uri, "--yes", "--python", sys.executable]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "make the virtual environment" in said
    assert "install numpy into it" in said
    assert (folder / "bin" / "python").exists()
    with open_device(server.uri) as device:
        assert device.host.runtimes["numpy"]
        assert device.host.runtimes["onnxruntime"] is None


def test_setting_up_asks_first(own_environment, monkeypatch, capsys):
    server, folder = own_environment
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    assert _run(["device", "setup", server.uri]) == 130
    assert "onnxruntime==" in capsys.readouterr().err
    assert not folder.exists()


def test_what_cannot_be_set_up_is_removed(own_environment, monkeypatch, capsys):
    server, folder = own_environment
    monkeypatch.setattr(ssh_module, "requirements", lambda **_: ["./no-such-package"])
    assert _run(["device", "setup", server.uri, "--yes", "--python", sys.executable]) == 4
    said = " ".join(capsys.readouterr().err.split())
    assert "no-such-package" in said
    assert "Traceback" not in said
    assert not folder.exists()
