"""Faults of `ssh://` devices."""

import os
import shutil
import socket

from faults import CRASH, mount_tiny, registry, when, when_running

FAULTS = {}
fault = registry(FAULTS)


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


def remote(place, *lines):
    """Return an ssh device whose Python first runs `lines`."""
    command = place.python(*lines).removeprefix("exec:")
    python = place.script("python", f'#!/bin/sh\nexec {command} "$@"\n')
    return [place.ssh.uri, "--python", str(python)]
