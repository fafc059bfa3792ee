"""Injected faults: each has its exit code and message, leaves no files, and does not hang.

`docs/reference/devices.md` lists them; a test compares the two lists.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest
from faults import (
    CORRUPTER,
    PATIENCE_S,
    Place,
    listed_faults,
    mount_tiny,
    processes_in,
    registry,
    wait_until,
    wait_until_empty,
    when,
)
from real_parts import connections, program

from mobiledeploy.cli import _run
from mobiledeploy.devices import agent_session as session
from mobiledeploy.devices.qemu import plugin as qemu_plugin

FAULTS = {}
fault = registry(FAULTS)

# Changes ONNX Runtime when it is imported.
AT_IMPORT = """
import builtins, os, signal, sys, time
real_import = builtins.__import__
def watching(name, *others, **more):
    module = real_import(name, *others, **more)
    if name == "onnxruntime" and hasattr(module, "InferenceSession"):
        builtins.__import__ = real_import
        {act}
    return module
builtins.__import__ = watching
"""


def when_loading(expression: str) -> str:
    """Evaluate an expression in place of loading a model."""
    act = f"module.InferenceSession = lambda *a, **k: {expression}"
    return AT_IMPORT.format(act=act)


def when_running(expression: str) -> str:
    """Evaluate an expression, which may call `run(*a)`, in place of an inference."""
    act = "run = module.InferenceSession.run; "
    return AT_IMPORT.format(act=act + f"module.InferenceSession.run = lambda *a: {expression}")


HANG = "#!/bin/sh\nsleep 1000\n"
RAISE = "(_ for _ in ()).throw(RuntimeError('no luck'))"
CRASH = "os.kill(os.getpid(), signal.SIGSEGV)"


# ---- exec


@fault(2, "exec: has no command")
def exec_has_no_command(_):
    return ["exec:"]


@fault(2, "No closing quotation")
def exec_quotation_is_not_closed(_):
    return ["exec:python 'x"]


@fault(2, "'telnet://pi' is not a device")
def unknown_kind_of_device(_):
    return ["telnet://pi"]


@fault(4, "no-such-program cannot be run: No such file")
def exec_command_does_not_exist(_):
    return ["exec:no-such-program"]


@fault(4, "ended with code 3 before Python started. Last output: not today")
def exec_command_is_not_python(place):
    return [f"exec:{place.script('refuse', '#!/bin/sh' + chr(10) + 'echo not today >&2; exit 3')}"]


@fault(4, "sent nothing for 1 s and was stopped")
def exec_command_hangs(place):
    session.GRACE_S = 0.5
    return [f"exec:{place.script('hang', HANG)}", "--timeout", "1"]


@fault(4, "Python 3.9 or later is needed; this is Python")
def exec_python_is_too_old(place):
    return [place.python("import sys; sys.version_info = (3, 8, 0)")]


@fault(4, "float.onnx needs onnxruntime, which cannot be imported .* device setup")
def exec_has_no_runtime(place):
    return [place.python("import sys; sys.modules['onnxruntime'] = None")]


@fault(4, "A module cannot be imported on the device: .*numpy")
def exec_has_no_numpy(place):
    return [place.python("import sys; sys.modules['numpy'] = None")]


@fault(4, r"was ended by SIGSEGV. The last artifact that it began to load is .*float\.onnx")
def exec_runtime_crashes_while_loading(place):
    return [place.python(when_loading(CRASH))]


@fault(4, "was ended by SIGABRT")
def exec_runtime_aborts_while_running(place):
    return [place.python(when_running("os.abort()"))]


@fault(4, "was ended by SIGKILL")
def exec_runs_out_of_memory(place):
    """The kernel then sends SIGKILL to the process that runs the artifacts."""
    return [place.python(when_running("os.kill(os.getpid(), signal.SIGKILL)"))]


@fault(4, "was ended by SIGKILL")
def exec_agent_is_killed(place):
    kill = "(os.kill(os.getppid(), signal.SIGKILL), time.sleep(1000))"
    return [place.python(when_running(kill))]


@fault(4, "took more than 2 s and was stopped")
def exec_runtime_hangs(place):
    return [place.python(when_running("time.sleep(1000)")), "--timeout", "2"]


@fault(4, "ONNX Runtime failed while running .*: no luck")
def exec_runtime_fails(place):
    return [place.python(when_running(RAISE))]


@fault(1, r"differ from this machine.*SQNR -39.8 dB")
def exec_runtime_computes_wrong_outputs(place):
    return [place.python(when_running("[-x for x in run(*a)]"))]


@fault(3, "ONNX Runtime .* cannot load .*float.onnx: no luck")
def exec_runtime_rejects_the_model(place):
    return [place.python(when_loading(RAISE))]


@fault(4, "has [0-9]+ bytes free; [0-9]+ are needed")
def exec_disk_is_full(place):
    mount_tiny(place.tmp)
    return [place.python()]


@fault(4, "Could not write .* on the device: File too large")
def exec_file_cannot_be_written(place):
    return [place.python(before="prlimit --fsize=4096")]


@fault(4, "arrived damaged: its sha256 is")
def exec_file_is_damaged_in_transit(place):
    corrupter = place.script("corrupter.py", CORRUPTER)
    return [place.python(before=f"{sys.executable} {corrupter} flip")]


@fault(4, "arrived damaged: its sha256 is")
def exec_connection_is_cut_while_sending(place):
    corrupter = place.script("corrupter.py", CORRUPTER)
    return [place.python(before=f"{sys.executable} {corrupter} cut")]


@fault(0, "0 of 60 outputs differ")
def exec_prints_between_the_messages(place):
    noise = "(os.write(1, b'noise'), print('{\"result\": 1}'), run(*a))[-1]"
    return [place.python("print('Welcome!', flush=True)", when_running(noise))]


@fault(2, r"cannot be bound to the cores \[4095\]")
def exec_has_fewer_cores(place):
    return [place.python(), "--cpu-affinity", "4095"]


@fault(2, "--python applies to ssh:// devices only")
def exec_gets_python_option(place):
    return [place.python(), "--python", "python3"]


@fault(4, "Instructions cannot be counted on this device: it does not run under a QEMU")
def exec_does_not_count_instructions(place):
    return [place.python(), "--count-instructions"]


@fault(4, r"ended with code 1 before Python started. Last output: .*ould not load plugin")
def exec_qemu_cannot_load_the_plugin(place):
    program("qemu-aarch64", "qemu-user")
    os.environ["MOBILEDEPLOY_CACHE"] = str(place.tools)
    qemu_plugin.build().write_bytes(b"nothing")
    return ["exec:qemu-aarch64 /no/python", "--count-instructions"]


@fault(4, "could not be compiled with `/nowhere/cc`. Last output: .*No such file")
def no_compiler_for_the_plugin(place):
    os.environ |= {"MOBILEDEPLOY_CACHE": str(place.tools / "cache"), "CC": "/nowhere/cc"}
    return [place.python(), "--count-instructions"]


# ---- ssh


@fault(4, "ssh cannot be run: No such file.*Install the OpenSSH client")
def ssh_is_not_installed(place):
    os.environ["PATH"] = str(place.tools)
    return [place.ssh.uri]


@fault(4, "it rejected the login. Last output: .*Permission denied")
def ssh_key_is_wrong(place):
    place.ssh.configure_client(key="other_key")
    return [place.ssh.uri]


@fault(4, "its host key is unknown")
def ssh_host_key_is_unknown(place):
    place.ssh.configure_client(known="no_hosts")
    return [place.ssh.uri]


@fault(4, "its host key has changed")
def ssh_host_key_has_changed(place):
    place.ssh.configure_client(known="changed_hosts")
    return [place.ssh.uri]


@fault(4, "it cannot be reached. Last output: .*Connection refused")
def ssh_host_is_down(_):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return [f"ssh://127.0.0.1:{probe.getsockname()[1]}"]


@fault(4, "it cannot be reached")
def ssh_host_name_is_unknown(_):
    return ["ssh://no-such-host.invalid"]


@fault(4, "ssh took more than 2 s and was stopped")
def ssh_host_does_not_answer(place):
    silent = place.open.enter_context(socket.create_server(("127.0.0.1", 0)))
    return [f"ssh://127.0.0.1:{silent.getsockname()[1]}", "--timeout", "2"]


@fault(4, "the connection broke")
def ssh_connection_is_cut_while_running(place):
    cut = f"(open({str(place.tools / 'cut')!r}, 'w').close(), time.sleep(1000))"
    when(place.tools / "cut", place.ssh.cut_connections)
    return remote(place, when_running(cut))


@fault(4, "/nowhere/python cannot be started on ssh://")
def ssh_has_no_python(place):
    return [place.ssh.uri, "--python", "/nowhere/python"]


@fault(4, "needs onnxruntime, which cannot be imported")
def ssh_has_no_runtime(place):
    return remote(place, "import sys; sys.modules['onnxruntime'] = None")


@fault(4, "has [0-9]+ bytes free")
def ssh_disk_is_full(place):
    mount_tiny(place.tmp)
    return remote(place, "")


@fault(4, "was ended by SIGSEGV")
def ssh_runtime_crashes(place):
    return remote(place, when_running(CRASH))


@fault(0, "0 of 60 outputs differ")
def ssh_file_name_is_strange(place):
    strange = place.tools / "mobile net \"v2\" 'ä' $HOME;`id`.onnx"
    shutil.copy(place.artifact, strange)
    place.artifact = strange
    return remote(place, "print('Welcome to your board!', flush=True)")


# ---- adb


@fault(4, "adb is not installed. Try: Install Android's platform-tools")
def adb_is_not_installed(place):
    os.environ["PATH"] = str(place.tools)
    return ["adb://"]


@fault(4, "adb finds no phone. Try: Enable USB debugging")
def adb_finds_no_phone(_):
    return ["adb://"]


@fault(2, r"adb finds several phones: .* \(device\), .* \(device\). Try: Choose one")
def adb_finds_several_phones(place):
    place.phones()
    place.phones()
    return ["adb://"]


@fault(2, "adb finds no phone emulator-5554; it finds 127.0.0.1:")
def adb_finds_another_phone(place):
    place.phones()
    return ["adb://emulator-5554"]


@fault(4, "is 'unauthorized'; expected 'device'. Try: Unlock it and allow USB debugging")
def adb_phone_is_unauthorized(place):
    place.phones("unauthorized")
    return ["adb://"]


@fault(4, "is 'offline'; expected 'device'. Try: Unplug it")
def adb_phone_is_offline(place):
    return [f"adb://{place.phones('offline').serial}"]


@fault(2, "No --runner is onnxruntime_perf_test, which runs .onnx files on Android")
def adb_runner_is_for_another_format(place):
    place.phones()
    return ["adb://", "--runner", str(place.script("executor_runner", "#!/bin/sh"))]


@fault(2, "--runner .*/other is not a runner")
def adb_runner_is_another_program(place):
    place.phones()
    return ["adb://", "--runner", str(place.script("other", "#!/bin/sh"))]


@fault(2, "--runner PATH applies to adb:// devices only")
def exec_gets_runner_option(place):
    return [place.python(), "--runner", "onnxruntime_perf_test"]


@fault(4, "`adb .* push .* ended with code 1")
def adb_connection_is_cut_while_sending(place):
    place.phones().cut_after_bytes = 1000
    return with_runner(place, "sleep 1")


@fault(4, "No space left on device")
def adb_disk_is_full(place):
    place.phones().disk_is_full = True
    return with_runner(place, "sleep 1")


@fault(4, "arrived damaged on adb://: its sha256 is")
def adb_file_is_damaged_in_transit(place):
    place.phones().flips_a_byte = True
    return with_runner(place, "sleep 1")


@fault(4, "on adb:// ended with code 139")
def adb_runner_crashes(place):
    place.phones()
    return with_runner(place, "kill -SEGV $$")


@fault(4, "on adb:// ended with code 126. Last output: .*Exec format error")
def adb_runner_is_for_another_processor(place):
    place.phones()
    runner = place.tools / "onnxruntime_perf_test"
    runner.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(100))
    return ["adb://", "--runner", str(runner)]


@fault(4, "does not print its times. Last output: all is well")
def adb_runner_prints_something_else(place):
    place.phones()
    return with_runner(place, "echo all is well")


@fault(4, "`adb shell` took more than 5 s and was stopped")
def adb_runner_hangs(place):
    place.phones()
    return [*with_runner(place, "exec sleep 1000"), "--timeout", "5"]


@fault(4, "The connection to adb:// broke")
def adb_connection_is_cut_while_running(place):
    phone = place.phones()
    when(place.tools / "cut", phone.cut)
    return with_runner(place, f"touch {place.tools / 'cut'}; exec sleep 1000")


def with_runner(place, script):
    """Return a phone with a perf_test that is a shell script."""
    runner = place.script("onnxruntime_perf_test", f"#!/bin/sh\n{script}\n")
    return ["adb://", "--runner", str(runner)]


def remote(place, *lines):
    """Return an ssh device whose Python first runs `lines`."""
    command = place.python(*lines).removeprefix("exec:")
    python = place.script("python", f'#!/bin/sh\nexec {command} "$@"\n')
    return [place.ssh.uri, "--python", str(python)]


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
