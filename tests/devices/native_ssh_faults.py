"""Faults of the native runner on `ssh://` devices."""

import shutil
import subprocess

from faults import registry, when
from native_faults import built_folder
from real_parts import missing

from mobiledeploy.devices.native.bundle import runner_folder

FAULTS = {}
fault = registry(FAULTS)


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
