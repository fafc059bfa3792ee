"""Injected faults of the native runner: each has its exit code and message, and leaves no files.

`docs/reference/devices.md` lists them; a test compares the two lists.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

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
from native_faults import break_runtime, built_folder, link_bundle, replace_file
from real_parts import connections, missing

from mobiledeploy.cli import _run
from mobiledeploy.devices import agent_session as session
from mobiledeploy.devices.native.bundle import Bundle, runner_folder, runner_key, write_bundle

pytestmark = pytest.mark.ci  # they need the compiled runner

FAULTS = {}
SETUP_FAULTS = {}
fault = registry(FAULTS)
setup_fault = registry(SETUP_FAULTS)


@dataclass
class NativePlace(Place):
    """Also the cache with the runner, a cache of the test's own, and the runners' folder on ssh."""

    built: Path
    cache: Path
    home: Path

    def in_cache(self) -> Bundle:
        """Link the runner into the test's cache, which exec devices use."""
        return link_bundle(self.built, built_folder(self.cache))

    def over_ssh(self) -> Bundle:
        """Link the runner to its place on the ssh server."""
        return link_bundle(self.built, self.home / runner_folder())

    def on_phone(self, phone) -> Bundle:
        """Link the runner to its place on a phone."""
        return link_bundle(self.built, phone.folder / "mobiledeploy" / runner_folder())

    def breaks(self, bundle, *flags, **steps):
        break_runtime(bundle, self.built, self.tools, *flags, **steps)

    def exec(self, before=""):
        return [f"exec:{before} env TMPDIR={self.tmp}".replace(": ", ":"), "--runner", "native"]


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


# ---- exec


@fault(4, "There is no native runner for .* on this machine. Try: Run `mobiledeploy device setup")
def exec_runner_is_not_set_up(place):
    return place.exec()


@fault(4, "ended with code 3 before the native runner started. Last output: not today")
def exec_command_does_not_run_the_runner(place):
    place.in_cache()
    script = place.script("refuse", "#!/bin/sh\necho not today >&2; exit 3\n")
    return [f"exec:{script}", "--runner", "native"]


@fault(4, "ended with code 12[67] before the native runner started")
def exec_runner_is_for_another_processor(place):
    bundle = place.in_cache()
    [loader] = bundle.folder.glob("ld-linux-*")
    replace_file(bundle, loader.name, b"\x7fELF\x02\x01\x01" + bytes(100))
    return place.exec()


@fault(4, "ended with code 127 before the native runner started. Last output: .*cannot open")
def exec_program_is_missing(place):
    (place.in_cache().folder / "runner").unlink()
    return place.exec()


@fault(4, "float.onnx needs onnxruntime, which cannot be loaded on the device: .*No such file")
def exec_runtime_is_missing(place):
    (place.in_cache().folder / "libonnxruntime.so.1").unlink()
    return place.exec()


@fault(4, "needs onnxruntime, which cannot be loaded on the device: .*invalid ELF header")
def exec_runtime_is_damaged(place):
    replace_file(place.in_cache(), "libonnxruntime.so.1", b"nonsense" * 100)
    return place.exec()


@fault(4, r"was ended by SIGSEGV. The last artifact that it began to load is .*float\.onnx")
def exec_runtime_crashes_while_loading(place):
    place.breaks(place.in_cache(), AT_LOAD="crash")
    return place.exec()


@fault(4, "was ended by SIGABRT")
def exec_runtime_aborts_while_running(place):
    place.breaks(place.in_cache(), ACT="stop")
    return place.exec()


@fault(4, "was ended by SIGKILL")
def exec_runs_out_of_memory(place):
    """The kernel then sends SIGKILL to the process that runs the artifacts."""
    place.breaks(place.in_cache(), ACT="memory")
    return place.exec()


@fault(4, "was ended by SIGKILL")
def exec_runner_is_killed(place):
    place.breaks(place.in_cache(), ACT="parent")
    return place.exec()


@fault(4, "took more than 2 s and was stopped")
def exec_runtime_hangs(place):
    place.breaks(place.in_cache(), ACT="hang")
    return [*place.exec(), "--timeout", "2"]


@fault(4, "ONNX Runtime failed while running .*: no luck")
def exec_runtime_fails(place):
    place.breaks(place.in_cache(), AT_RUN="refuse")
    return place.exec()


@fault(3, "ONNX Runtime 1.32.0 cannot load .*float.onnx: no luck")
def exec_runtime_rejects_the_model(place):
    place.breaks(place.in_cache(), AT_CREATE="refuse")
    return place.exec()


@fault(1, "differ from this machine.*SQNR -39.8 dB")
def exec_runtime_computes_wrong_outputs(place):
    place.breaks(place.in_cache(), "-DNEGATE")
    return place.exec()


@fault(0, "0 of 60 outputs differ")
def exec_runtime_prints_between_the_messages(place):
    place.breaks(place.in_cache(), ACT="noise")
    return place.exec()


@fault(4, "has [0-9]+ bytes free; [0-9]+ are needed")
def exec_disk_is_full(place):
    place.in_cache()
    mount_tiny(place.tmp)
    return place.exec()


@fault(4, "Could not write .* on the device: No such file")
def exec_temporary_folder_does_not_exist(place):
    place.in_cache()
    return ["exec:env TMPDIR=/nowhere", "--runner", "native"]


@fault(4, "Could not write .* on the device: File too large")
def exec_file_cannot_be_written(place):
    place.in_cache()
    return place.exec("prlimit --fsize=4096")


@fault(4, "arrived damaged: its sha256 is")
def exec_file_is_damaged_in_transit(place):
    place.in_cache()
    return place.exec(f"{sys.executable} {place.script('corrupter.py', CORRUPTER)} flip")


@fault(4, "arrived damaged: its sha256 is")
def exec_connection_is_cut_while_sending(place):
    place.in_cache()
    return place.exec(f"{sys.executable} {place.script('corrupter.py', CORRUPTER)} cut")


@fault(2, r"cannot be bound to the cores \[4095\]; it may use \[")
def exec_has_fewer_cores(place):
    place.in_cache()
    return [*place.exec(), "--cpu-affinity", "4095"]


@fault(4, "Instructions cannot be counted on this device: it does not run under a QEMU")
def exec_does_not_count_instructions(place):
    place.in_cache()
    return [*place.exec(), "--count-instructions"]


@fault(2, "--runner native and another --runner exclude one another")
def two_kinds_of_runners(place):
    return [*place.exec(), "--runner", "executor_runner"]


@fault(2, "The device local runs artifacts in the Python of mobiledeploy")
def local_gets_the_native_runner(_):
    return ["local", "--runner", "native"]


# ---- ssh


@fault(4, "has no native runner of this version. Try: Run `mobiledeploy device setup ssh://")
def ssh_runner_is_not_set_up(place):
    return [place.ssh.uri, "--runner", "native"]


@fault(4, "the connection broke")
def ssh_connection_is_cut_while_running(place):
    mark = place.tools / "mark"
    place.breaks(place.over_ssh(), f'-DMARK="{mark}"', ACT="hang")
    when(mark, place.ssh.cut_connections)
    return [place.ssh.uri]


@fault(4, "was ended by SIGSEGV")
def ssh_runtime_crashes(place):
    place.breaks(place.over_ssh(), ACT="crash")
    return [place.ssh.uri]


@fault(4, "took more than 3 s and was stopped")
def ssh_runtime_hangs(place):
    place.breaks(place.over_ssh(), ACT="hang")
    return [place.ssh.uri, "--timeout", "3"]


@fault(4, "ended with code 126 before it started. Last output: .*Permission denied.*noexec")
def ssh_folder_is_mounted_noexec(place):
    place.home.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", place.home], check=False
    )
    if done.returncode:
        missing("the right to mount a file system", "run the tests as root")
    shutil.copytree(built_folder(place.built), place.home / runner_folder())
    return [place.ssh.uri, "--runner", "native"]


@fault(2, "--python and --runner native exclude one another")
def ssh_gets_python_and_the_native_runner(place):
    return [place.ssh.uri, "--python", "python3", "--runner", "native"]


@fault(0, "0 of 60 outputs differ")
def ssh_file_name_is_strange(place):
    place.over_ssh()
    strange = place.tools / "mobile net \"v2\" 'ä' $HOME;`id`.onnx"
    shutil.copy(place.artifact, strange)
    place.artifact = strange
    return [place.ssh.uri]


# ---- adb


@fault(
    4, "adb:// has no native runner of this version. Try: Run `mobiledeploy device setup adb://`"
)
def adb_runner_is_not_set_up(place):
    place.phones()
    return ["adb://"]


@fault(2, "There is no Python on Android")
def adb_gets_the_python_runner(place):
    place.phones()
    return ["adb://", "--runner", "python"]


@fault(4, "on adb:// ended with code 126 before it started. Last output: .*Permission denied")
def adb_policy_forbids_to_run_the_runner(place):
    bundle = place.on_phone(place.phones())
    [loader] = bundle.folder.glob("ld-linux-*")
    content = loader.read_bytes()
    replace_file(bundle, loader.name, content)
    loader.chmod(0o644)  # root may not run it either
    return ["adb://"]


@fault(4, "was ended by SIGSEGV. The last artifact that it began to load is .*float.onnx")
def adb_runtime_crashes(place):
    place.breaks(place.on_phone(place.phones()), AT_CREATE="fatal")
    return ["adb://"]


@fault(4, "was ended by SIGKILL")
def adb_phone_kills_the_runtime(place):
    place.breaks(place.on_phone(place.phones()), ACT="memory")
    return ["adb://"]


@fault(4, "took more than 3 s and was stopped")
def adb_runtime_hangs(place):
    place.breaks(place.on_phone(place.phones()), ACT="hang")
    return ["adb://", "--timeout", "3"]


@fault(4, "The connection to adb:// broke. .*Check the cable")
def adb_connection_is_cut_while_running(place):
    phone, mark = place.phones(), place.tools / "mark"
    place.breaks(place.on_phone(phone), f'-DMARK="{mark}"', ACT="hang")
    when(mark, phone.cut)
    return ["adb://"]


@fault(4, "The connection to adb:// broke")
def adb_connection_is_cut_while_sending(place):
    phone = place.phones()
    place.on_phone(phone)
    phone.cut_input_after_bytes = 20_000
    return ["adb://"]


@fault(1, "differ from this machine.*SQNR -39.8 dB")
def adb_runtime_computes_wrong_outputs(place):
    place.breaks(place.on_phone(place.phones()), "-DNEGATE")
    return ["adb://"]


@fault(2, r"cannot be bound to the cores \[4095\]")
def adb_has_fewer_cores(place):
    place.on_phone(place.phones())
    return ["adb://", "--cpu-affinity", "4095"]


# ---- setup


@setup_fault(2, "telnet://pi cannot be set up")
def setup_of_an_unknown_device(_):
    return ["telnet://pi"]


@setup_fault(4, "There is no C.. compiler for")
def setup_without_a_compiler(place):
    os.environ["PATH"] = str(place.tools)
    os.environ["CXX"] = "/nowhere/c++"
    return ["exec:env"]


@setup_fault(2, "is not a bundle of the native runner")
def setup_with_another_file(place):
    return ["exec:env", "--bundle", str(place.artifact)]


@setup_fault(2, "runs Darwin; the native runner needs Linux")
def setup_of_a_mac(place):
    uname = place.script("uname", "#!/bin/sh\necho Darwin\n")
    assert uname
    return [over(place, f"PATH={place.tools}:$PATH"), *bundled(place)]


@setup_fault(2, "is for x86_64; adb:// has aarch64|is for aarch64; adb:// has x86_64")
def setup_with_a_bundle_for_another_processor(place):
    place.phones(architecture="aarch64" if os.uname().machine == "x86_64" else "x86_64")
    return ["adb://", *bundled(place)]


@setup_fault(4, "could not install .*No space left on device")
def setup_over_ssh_fills_the_disk(place):
    place.home.mkdir()
    mount_tiny(place.home)
    return [place.ssh.uri, *bundled(place)]


@setup_fault(4, "could not install .*mkdir: cannot create directory")
def setup_over_ssh_cannot_write(place):
    place.home.touch()
    return [place.ssh.uri, *bundled(place)]


@setup_fault(4, "could not install .*(arrived damaged|tar: )")
def setup_over_adb_is_damaged_in_transit(place):
    place.phones().flips_input = True
    return ["adb://", *bundled(place)]


@setup_fault(4, "could not install or find the native runner")
def setup_over_adb_is_cut_while_sending(place):
    place.phones().cut_input_after_bytes = 1_000_000
    return ["adb://", *bundled(place)]


@setup_fault(4, "could not install .*tar: not found|could not install .*tar: No such")
def setup_of_a_phone_without_tar(place):
    phone = place.phones()
    tools = place.tools / "phone"
    tools.mkdir()
    for name in ("sh", "sha256sum", "mkdir", "rm", "mv", "echo", "readlink"):
        (tools / name).symlink_to(shutil.which(name))
    uname = Path(phone.environment["PATH"].split(":")[0]) / "uname"
    (tools / "uname").symlink_to(uname)
    phone.environment["PATH"] = str(tools)
    return ["adb://", *bundled(place)]


def bundled(place):
    """Return the options that pass this machine's runner as a file."""
    path = place.built / f"bundle-{os.uname().machine}-{runner_key()}.tar.gz"
    if not path.exists():
        write_bundle(Bundle.open(built_folder(place.built)), path)
    return ["--bundle", str(path)]


def over(place, variables):
    """Return the ssh server; its commands run with other variables."""
    text = (place.ssh.folder / "ssh_config").read_text()
    name = variables.partition("=")[0]
    assert name
    client = place.tools / "ssh"
    real = place.ssh.folder / "bin" / "ssh"
    client.write_text(
        "#!/bin/sh\nfor last; do :; done\ncase $last in sh*) n=$#; i=0\n"
        "for word; do i=$((i+1)); [ $i = 1 ] && set --; "
        f'[ $i = $n ] && word="{variables.replace("$", chr(92) + "$")} $word"; '
        'set -- "$@" "$word"; done;; esac\n'
        f'exec {real} "$@"\n'
    )
    client.chmod(0o755)
    os.environ["PATH"] = f"{place.tools}:{os.environ['PATH']}"
    assert text
    return place.ssh.uri


# ---- tests


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
