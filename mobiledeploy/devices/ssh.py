"""A machine over ssh, with the system's OpenSSH and the user's configuration.

The agent runs there in a Python, or the native runner takes its place: it is chosen if it was set
up and `mobiledeploy device setup` made no Python environment.

`~/.ssh/config` decides on keys, agent, jump hosts and host keys. The device authenticates once, and
all its sessions share the connection (ControlMaster). Commands are argv lists here; they are quoted
for the shell on the device.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from mobiledeploy.devices.agent import BOOTSTRAP
from mobiledeploy.devices.command_output import last_output
from mobiledeploy.devices.native.bundle import runner_folder
from mobiledeploy.devices.native.place import FIND_HOME, START, RunnerPlace, explain_start
from mobiledeploy.devices.python_device import TIMEOUT_S, PythonDevice, RunnerKind
from mobiledeploy.errors import MobileDeployError, RuntimeFailedError, UsageError
from mobiledeploy.utils.progress import step

ENVIRONMENT = "~/.cache/mobiledeploy/venv"
_SSH_FAILED = 255
_NOT_FOUND = (126, 127)
# a host that does not answer for 15 s counts as gone, while connecting and afterwards
_OPTIONS = {"ConnectTimeout": "15", "ServerAliveInterval": "5", "ServerAliveCountMax": "3"}
_HOME = "~/.cache/mobiledeploy"  # of the native runner, in a folder for each version
# $1: the interpreter, or "" for that of ENVIRONMENT or else the system's; $2: its program
_START_PYTHON = f"""p=$1
[ "$p" ] || {{ p="$HOME{ENVIRONMENT[1:]}/bin/python"; [ -x "$p" ] || p=python3; }}
case $p in "~"/*) p="$HOME/${{p#??}}";; esac
exec "$p" -c "$2"
"""
# prints what is there: $1 is the folder of the native runner, $2 that of the environment
_PROBE = (
    FIND_HOME
    + """[ -x "$HOME/$2/bin/python" ] && echo mobiledeploy-has-environment
[ -e "$h/runner" ] && echo mobiledeploy-has-runner
echo "mobiledeploy-machine $(uname -s) $(uname -m)"
"""
)
_INSTALL = """p=$1; e="$HOME/$2"; shift 2
case $p in "~"/*) p="$HOME/${p#??}";; esac
"$p" -m venv --clear "$e" && "$e/bin/python" -m pip install --disable-pip-version-check "$@" || {
  rm -rf "$e"; exit 1; }
"""
# What OpenSSH prints -> the reason, and the remedy.
_REASONS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key has changed",
        "Find out why: it may be another machine. `ssh-keygen -R HOST` removes the known key.",
    ),
    (
        "Host key verification failed",
        "its host key is unknown",
        "Connect once with `ssh` and compare the fingerprint that it shows.",
    ),
    (
        "Permission denied",
        "it rejected the login",
        "Check the user and the key: `ssh-copy-id` installs yours, `ssh -v` shows which are tried.",
    ),
    (
        r"Connection refused|No route to host|timed out|not resolve|unreachable|Name or service",
        "it cannot be reached",
        "Check its name and its port, that it is switched on, and that it runs an ssh server.",
    ),
)
_BROKEN = ("the connection broke", "Check the network, and try again.")


class SshDevice(PythonDevice):
    """`ssh://[user@]host[:port]`; `host` may be an alias of `~/.ssh/config`.

    Args:
        uri: The device.
        python: The interpreter on the device; "" for the one of `mobiledeploy device setup`, or
            else python3. A leading ~ is the home folder there.
        runner: "python" or "native"; "" for what was set up.
        timeout_s: How long a task may take, and how long a session may send nothing.

    Raises:
        UsageError: See `ssh_arguments`.
    """

    def __init__(
        self,
        uri: str,
        *,
        python: str = "",
        runner: RunnerKind = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._target = ssh_arguments(uri)
        self._python = python
        self._runner: RunnerKind = "python" if python else runner
        self.machine = ""  # its system and architecture, as `uname -sm` prints them
        self._folder: Path | None = None
        super().__init__(uri, [], timeout_s=timeout_s)

    def __enter__(self) -> Self:
        """Connect and authenticate.

        Raises:
            RuntimeFailedError: There is no ssh client, or it cannot connect.
        """
        # the paths of sockets are limited to about 100 characters: use /tmp, whatever TMPDIR is
        self._folder = Path(tempfile.mkdtemp(prefix=f"mobiledeploy-ssh-{os.getpid()}-", dir="/tmp"))
        try:
            with step(f"Connecting to {self.uri}"):
                found = self._connect()
        except BaseException:
            self._disconnect()
            raise
        [self.machine] = re.findall(r"mobiledeploy-machine (.*)", found) or [""]
        prefers_native = "has-runner" in found and "has-environment" not in found
        self._is_native = self._runner == "native" or (not self._runner and prefers_native)
        start = [_START_PYTHON, "sh", self._python, BOOTSTRAP]
        if self._is_native:
            start = [START, "sh", f"{_HOME}/{runner_folder()}"]
        self._argv = self.remote(["sh", "-c", *start])
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._disconnect()

    def explain_exit(self, code: int, output: str, *, started: bool) -> MobileDeployError | None:
        """Return an error for the exit codes of ssh itself and of the shell on the device."""
        if code == _SSH_FAILED:
            return self._unreachable(output)
        if self._is_native:
            return None if started else explain_start(self.uri, code, output)
        if code in _NOT_FOUND and not started:
            return RuntimeFailedError(
                f"{self._python or 'python3'} cannot be started on {self.uri}.",
                remedy="Install Python 3.9 or later there, or name an interpreter with --python.",
            )
        return None

    def remote(self, argv: list[str]) -> list[str]:
        """Return the argv that runs an argv on the device."""
        return [*self._ssh("ControlMaster=no"), shlex.join(argv)]

    def runner_sha256(self) -> str:
        """Return the sha256 that stands for the native runner's files on the device."""
        return self.runner_place().sums_sha256()

    def runner_place(self) -> RunnerPlace:
        """Return where the native runner is kept on the device."""
        return RunnerPlace(uri=self.uri, home=_HOME, command=self.remote, timeout_s=self._timeout_s)

    def install(self, requirements: list[str]) -> None:
        """Create mobiledeploy's virtual environment on the device and install into it.

        An existing one is replaced.

        Raises:
            RuntimeFailedError: The installation failed; the environment is removed.
        """
        environment = ENVIRONMENT.removeprefix("~/")
        script = ["sh", "-c", _INSTALL, "sh", self._python or "python3", environment]
        argv = self.remote([*script, *requirements])
        with step(f"Installing on {self.uri}: {', '.join(requirements)}"):
            done = _run(argv, timeout_s=self._timeout_s)
        if done.returncode:
            known = self.explain_exit(done.returncode, done.stderr, started=True)
            raise known or RuntimeFailedError(
                f"Installing on {self.uri} failed.{last_output(done.stdout + done.stderr)}",
                remedy="On Debian, install the package python3-venv first.",
            )

    def _ssh(self, *options: str) -> list[str]:
        assert self._folder is not None, "the device has not been entered"
        given = [f"{name}={value}" for name, value in _OPTIONS.items()]
        given += [f"ControlPath={self._folder}/connection", *options]
        return ["ssh", *(word for option in given for word in ("-o", option)), *self._target]

    def _connect(self) -> str:
        """Connect; return what the device answers to `_PROBE`."""
        argv = self._ssh("ControlMaster=yes", f"ControlPersist={int(self._timeout_s) + 60}")
        folders = (f"{_HOME}/{runner_folder()}", ENVIRONMENT.removeprefix("~/"))
        probe = shlex.join(["sh", "-c", _PROBE, "sh", *folders])
        done = _run([*argv, probe], timeout_s=self._timeout_s)
        if done.returncode:
            raise self._unreachable(done.stderr)
        return done.stdout

    def _unreachable(self, output: str) -> RuntimeFailedError:
        known = [rest for pattern, *rest in _REASONS if re.search(pattern, output)]
        reason, remedy = known[0] if known else _BROKEN
        return RuntimeFailedError(f"{self.uri}: {reason}.{last_output(output)}", remedy=remedy)

    def _disconnect(self) -> None:
        """Close the shared connection, if there is one, and remove its socket."""
        if self._folder is None:
            return
        with contextlib.suppress(RuntimeFailedError):  # there is no ssh client
            _run([*self._ssh(), "-O", "exit"], timeout_s=10)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None


def requirements(*, executorch: bool, litert: bool) -> list[str]:
    """Return the packages that a device needs, in the versions of this machine."""
    names = ["numpy", "onnxruntime"]
    names += ["torch", "executorch"] if executorch else []
    names += ["ai-edge-litert"] if litert else []
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def ssh_arguments(uri: str) -> list[str]:
    """Return ssh's arguments for `ssh://[user@]host[:port]`.

    Raises:
        UsageError: The URI has another form.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:  # such as [::1 without the bracket at its end
        parts, host, port = urlsplit(""), None, None
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.password
    words = (parts.username or "user", host or "")
    if not host or rest or any(not word or word.startswith("-") for word in words):
        raise UsageError(
            f"{uri!r} is not an ssh device; expected ssh://[user@]host[:port].",
            remedy="Put other options into ~/.ssh/config. ssh asks for passwords itself.",
        )
    name = parts.netloc.rpartition("@")[2]  # as typed, because aliases are case-sensitive
    name = name if port is None else name.rpartition(":")[0]
    user = [] if parts.username is None else ["-l", parts.username]
    return [*user, *([] if port is None else ["-p", str(port)]), name.strip("[]")]


def _run(argv: list[str], *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run ssh, which asks the user for passwords at the terminal.

    Raises:
        RuntimeFailedError: There is no ssh, or it took too long.
    """
    with (
        tempfile.TemporaryFile("w+", errors="replace") as out,
        tempfile.TemporaryFile("w+", errors="replace") as log,
    ):
        # files, not pipes: the connection that stays in the background would keep pipes open
        try:
            code = subprocess.run(  # noqa: S603 - an argv, no shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                timeout=timeout_s,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise RuntimeFailedError(
                f"ssh took more than {timeout_s:g} s and was stopped.",
                remedy="Raise --timeout, or see with `ssh -v` what it waits for.",
            ) from None
        except OSError as error:
            raise RuntimeFailedError(
                f"ssh cannot be run: {error.strerror}.", remedy="Install the OpenSSH client."
            ) from error
        out.seek(0)
        log.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read(), log.read())
