"""Injected faults: each has its exit code and message, leaves no files, and does not hang.

`exec_faults.py`, `ssh_faults.py` and `adb_faults.py` make them.
`docs/reference/devices.md` lists them; a test compares the two lists.
"""

import contextlib
import os
import re
import signal
import subprocess
import time

import adb_faults
import exec_faults
import pytest
import ssh_faults
from faults import (
    PATIENCE_S,
    Place,
    listed_faults,
    processes_in,
    wait_until,
    wait_until_empty,
    when_running,
)
from real_parts import connections
from ssh_faults import remote

from mobiledeploy.cli import _run
from mobiledeploy.devices import agent_session as session

FAULTS = exec_faults.FAULTS | ssh_faults.FAULTS | adb_faults.FAULTS


@pytest.fixture
def place(tmp_path, float_onnx, ssh, phones, monkeypatch):
    for name, value in (("PATH", ""), ("MOBILEDEPLOY_CACHE", str(tmp_path)), ("CC", "cc")):
        monkeypatch.setenv(name, os.environ.get(name, value))
    monkeypatch.setattr(session, "GRACE_S", 30.0)  # cleaning up is slow on a busy machine
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tools").mkdir()
    with contextlib.ExitStack() as stack:
        place = Place(tmp_path / "tmp", tmp_path / "tools", float_onnx, ssh, stack, phones)
        yield place
    if os.path.ismount(place.tmp):
        subprocess.run(["umount", place.tmp], check=True)


@pytest.mark.ci
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
    output = " ".join((captured.out + captured.err).split())
    assert found == code, output
    assert re.search(message, output), output
    assert "Traceback" not in output
    assert took < PATIENCE_S
    wait_until_empty(place.tmp)
    for phone in place.tools.parent.glob("phone?"):
        wait_until_empty(phone)
        wait_until(lambda folder=phone: not processes_in(folder))


@pytest.mark.ci
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
@pytest.mark.parametrize("over", ["exec", "ssh"])
def test_stopping_the_command_stops_the_session_on_the_device(over, end, place, console_script):
    running = place.tools / "running"
    wait = f"(open({str(running)!r}, 'w').close(), time.sleep(1000))"
    shared = when_running(wait)
    device = [place.python(shared)] if over == "exec" else remote(place, shared)
    with subprocess.Popen(
        [console_script, "bench", place.artifact, "--device", *device],
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        try:
            wait_until(running.exists)
            assert list(place.tmp.iterdir()) != []
            command.send_signal(end)
            _, output = command.communicate(timeout=PATIENCE_S)
        finally:
            command.kill()
    wait_until_empty(place.tmp)
    if end == signal.SIGINT:
        assert command.returncode == 130
        assert "Stopped." in output
        assert connections(command.pid) == []
    for folder in connections(command.pid):
        end_connection(folder)


def end_connection(folder):
    """Close a shared connection that a killed command has left behind."""
    socket_path = folder / "connection"
    argv = ["ssh", "-o", f"ControlPath={socket_path}", "-O", "exit", "pi"]
    subprocess.run(argv, capture_output=True, check=True)
    wait_until(lambda: not socket_path.exists())  # ssh removes it after its answer
    folder.rmdir()


def test_the_documentation_lists_all_faults_and_exit_codes(repository):
    assert listed_faults(repository, "## Failures") == {
        name: str(code) for name, (_, code, _) in FAULTS.items()
    }
    assert len(FAULTS) >= 25
