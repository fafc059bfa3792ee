"""Fixtures with real programs: ARM64 code under QEMU, an ssh server, the adb client.

A test whose program is missing is skipped. It fails if MOBILEDEPLOY_REQUIRE_DEVICES is set, as
.ci/run does.
"""

import fcntl
import os
import platform
import socket
import subprocess
from pathlib import Path

import pytest
from adbd import Daemon
from native_runners import write_runners
from real_parts import connections, missing, program
from sshd import start as start_sshd

from mobiledeploy.devices.native.bundle import build_bundle
from mobiledeploy.devices.qemu import processor

HERE = platform.machine()


@pytest.fixture(scope="session")
def arm64():
    """Return a function from a processor's name to the URI of an ARM64 Python."""
    qemu = program("qemu-aarch64", "qemu-user")
    root = os.environ.get("MOBILEDEPLOY_ARM64_ROOT")
    if not root:
        missing("MOBILEDEPLOY_ARM64_ROOT", "scripts/arm64-root FOLDER builds such a folder")
    python = Path(root) / "usr" / "bin" / "python3"
    return lambda processor: f"exec:{qemu} -cpu {processor} -L {root} {python}"


@pytest.fixture(scope="session")
def native_cache(tmp_path_factory):
    """Return a function that builds the native runner for an architecture, once for all workers.

    It returns the cache folder that holds it: MOBILEDEPLOY_NATIVE_CACHE, or a temporary one.
    """
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(os.environ.get("MOBILEDEPLOY_NATIVE_CACHE") or base / "native")

    def build(architecture):
        if architecture == "aarch64":
            program("aarch64-linux-gnu-g++-12", "g++-12-aarch64-linux-gnu")
        else:
            program("c++", "g++")
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock, pytest.MonkeyPatch.context() as patch:
            fcntl.flock(lock, fcntl.LOCK_EX)
            patch.setenv("MOBILEDEPLOY_CACHE", str(folder))
            build_bundle(architecture)
        return folder

    return build


@pytest.fixture(scope="session")
def arm64_bundle(native_cache):
    """The cache with the native runner for ARM64, which QEMU runs."""
    program("qemu-aarch64", "qemu-user")
    return native_cache("aarch64")


@pytest.fixture(scope="session")
def host_bundle(native_cache):
    """The cache with the native runner for this machine."""
    return native_cache(HERE)


@pytest.fixture
def native(host_bundle, monkeypatch):
    """The native runner of this machine is set up; the URI of a device that runs it."""
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(host_bundle))
    return "exec:env"


@pytest.fixture
def native_arm64(arm64_bundle, monkeypatch):
    """The native runner for ARM64 is set up; a function from a processor's name to its device."""
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(arm64_bundle))
    return lambda name: f"exec:qemu-aarch64 -cpu {name}"


@pytest.fixture
def runner_home(tmp_path, monkeypatch):
    """Another folder for the native runner over ssh than the one that this user may have."""
    monkeypatch.setattr("mobiledeploy.devices.ssh._HOME", str(tmp_path / "runners"))
    monkeypatch.setattr("mobiledeploy.devices.ssh.ENVIRONMENT", "~/nowhere")
    return tmp_path / "runners"


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory):
    """A real ssh server that accepts the tests' key; the client knows its host key."""
    sshd = program("sshd", "openssh-server")
    program("ssh", "openssh-client")
    server, process = start_sshd(tmp_path_factory.mktemp("sshd"), sshd)
    yield server
    process.terminate()
    process.wait()


@pytest.fixture
def ssh(ssh_server, monkeypatch):
    """The server, for the real client with the tests' configuration. No files may be left on it."""
    monkeypatch.setenv("PATH", f"{ssh_server.folder}/bin:{os.environ['PATH']}")
    ssh_server.configure_client()
    yield ssh_server
    assert list(ssh_server.tmp.iterdir()) == []
    assert connections(os.getpid()) == []


@pytest.fixture(scope="session")
def adb_server(tmp_path_factory):
    """Variables for an adb server that only the tests use, with its own key and port."""
    adb = program("adb", "adb")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("adb")
    environment = {"ANDROID_ADB_SERVER_PORT": str(port), "ANDROID_SDK_HOME": str(home)}
    yield environment
    subprocess.run(
        [adb, "kill-server"], env=os.environ | environment, capture_output=True, check=False
    )


@pytest.fixture
def phones(adb_server, tmp_path, monkeypatch):
    """Return a function that connects a phone in a given state and returns its daemon.

    Its programs run on this machine's processor, or, for "aarch64", in QEMU.
    """
    for name, value in adb_server.items():
        monkeypatch.setenv(name, value)
    connected = []

    def connect(state="device", architecture=HERE):
        folder = tmp_path / f"phone{len(connected)}"
        tools = tmp_path / f"tools{len(connected)}"
        folder.mkdir()
        tools.mkdir()
        for name, text in (("getprop", GETPROP), ("uname", UNAME)):
            (tools / name).write_text(text.replace("MACHINE", architecture))
            (tools / name).chmod(0o755)
        daemon = Daemon(folder, state)
        if architecture == "aarch64":
            argv = ["qemu-aarch64", "-cpu", "cortex-a76"]
            daemon.emulator = f"{' '.join(argv)} -L {processor.sysroot(argv)}"
        daemon.environment["PATH"] = f"{tools}:{os.environ['PATH']}"
        connected.append(daemon)
        subprocess.run(
            ["adb", "connect", daemon.serial], capture_output=True, timeout=240, check=False
        )
        return daemon

    yield connect
    for daemon in connected:
        subprocess.run(
            ["adb", "disconnect", daemon.serial], capture_output=True, timeout=240, check=False
        )
        daemon.close()


UNAME = """#!/bin/sh
case "$*" in
-m) echo MACHINE;;
"-s -m") echo Linux MACHINE;;
*) exit 1;;
esac
"""
GETPROP = """#!/bin/sh
case $1 in
ro.product.manufacturer) echo Google;;
ro.product.model) echo Pixel 9;;
ro.build.version.release) echo 16;;
ro.product.cpu.abi) echo arm64-v8a;;
*) echo;;
esac
"""


@pytest.fixture
def phone(phones):
    """One phone. No files may be left on it."""
    daemon = phones()
    yield daemon
    assert [path for path in daemon.folder.iterdir() if path.name != "mobiledeploy"] == []


@pytest.fixture(scope="session")
def runners(tmp_path_factory):
    """The paths of `executor_runner` and `onnxruntime_perf_test`."""
    return write_runners(tmp_path_factory.mktemp("runners"))
