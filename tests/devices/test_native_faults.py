"""Injected faults of the native runner: each has its exit code and message, and leaves no files.

`native_exec_faults.py`, `native_ssh_faults.py`, `native_adb_faults.py` and
`native_setup_faults.py` make them. `docs/reference/devices.md` lists them; a test compares the two
lists.
"""

import contextlib
import os
import re
import signal
import subprocess
import time

import native_adb_faults
import native_exec_faults
import native_setup_faults
import native_ssh_faults
import pytest
from faults import (
    PATIENCE_S,
    listed_faults,
    processes_in,
    wait_until,
    wait_until_empty,
)
from native_faults import NativePlace
from real_parts import connections

from mobiledeploy.cli import _run
from mobiledeploy.devices import agent_session as session

pytestmark = pytest.mark.ci  # they need the compiled runner

FAULTS = native_exec_faults.FAULTS | native_ssh_faults.FAULTS | native_adb_faults.FAULTS
SETUP_FAULTS = native_setup_faults.FAULTS


@pytest.fixture
def place(tmp_path, float_onnx, ssh, phones, monkeypatch, host_bundle, runner_home):
    for name in ("PATH", "CXX"):  # restored after the test
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(session, "GRACE_S", 30.0)  # cleaning up is slow on a busy machine
    for name in ("tmp", "tools", "cache"):
        (tmp_path / name).mkdir()
    with contextlib.ExitStack() as stack:
        yield NativePlace(
            *(tmp_path / "tmp", tmp_path / "tools", float_onnx, ssh, stack, phones),
            *(host_bundle, tmp_path / "cache", runner_home),
        )
    for folder in (tmp_path / "tmp", runner_home):
        if os.path.ismount(folder):
            subprocess.run(["umount", folder], check=True)


def check(found, code, message, output):
    assert found == code, output
    assert re.search(message, output), output
    assert "Traceback" not in output


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_reported_and_leaves_no_files(name, place, capsys):
    arrange, code, message = FAULTS[name]
    device, *options = arrange(place)
    began = time.monotonic()
    found = _run(
        ["bench", str(place.artifact), "--runs", "3", "--warmup", "0", "--device", device, *options]
    )
    took = time.monotonic() - began
    captured = capsys.readouterr()
    check(found, code, message, " ".join((captured.out + captured.err).split()))
    assert took < PATIENCE_S
    wait_until_empty(place.tmp)
    for phone in place.tools.parent.glob("phone?"):
        wait_until(lambda folder=phone: {p.name for p in folder.iterdir()} <= {"mobiledeploy"})
        wait_until(lambda folder=phone: not processes_in(folder))


@pytest.mark.parametrize("name", SETUP_FAULTS)
def test_a_failed_setup_is_reported_and_installs_nothing(name, place, capsys):
    arrange, code, message = SETUP_FAULTS[name]
    found = _run(["device", "setup", *arrange(place), "--yes"])
    captured = capsys.readouterr()
    check(found, code, message, " ".join((captured.out + captured.err).split()))
    homes = [place.home, *place.tools.parent.glob("phone?/mobiledeploy")]
    for home in homes:
        assert not home.is_dir() or list(home.glob("runner-*")) == []


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
@pytest.mark.parametrize("over_", ["exec", "adb"])
def test_stopping_the_command_stops_the_runner(over_, end, place, console_script):
    mark = place.tools / "mark"
    phone = place.phones() if over_ == "adb" else None
    bundle = place.in_cache() if phone is None else place.on_phone(phone)
    place.breaks(bundle, f'-DMARK="{mark}"', ACT="hang")
    device = place.exec() if phone is None else ["adb://"]
    sessions = place.tmp if phone is None else phone.folder
    with subprocess.Popen(
        [console_script, "bench", place.artifact, "--device", *device],
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        try:
            wait_until(mark.exists)
            assert list(sessions.glob("mobiledeploy-*")) != []
            command.send_signal(end)
            _, output = command.communicate(timeout=PATIENCE_S)
        finally:
            command.kill()
    wait_until(lambda: not list(sessions.glob("mobiledeploy-*")))
    if end == signal.SIGINT:
        assert command.returncode == 130
        assert "Stopped." in output
        assert connections(command.pid) == []


def test_the_documentation_lists_all_faults_and_exit_codes(repository):
    codes = {name: str(code) for name, (_, code, _) in (FAULTS | SETUP_FAULTS).items()}
    assert listed_faults(repository, "## Failures of the native runner") == codes
    assert len(codes) >= 40
