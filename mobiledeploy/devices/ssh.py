"""A machine over ssh: the system's OpenSSH, the user's own configuration, one connection.

Keys, agent, jump hosts and host keys are the user's affair: nothing of `~/.ssh/config` is
overridden. The first connection authenticates, the sessions share it (ControlMaster). Commands
are argv lists here and quoted for the shell over there.
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
from mobiledeploy.devices.python_device import TIMEOUT_S, PythonDevice
from mobiledeploy.errors import MobileDeployError, RuntimeFailedError, UsageError
from mobiledeploy.utils.progress import step

ENVIRONMENT = "~/.cache/mobiledeploy/venv"
_LAST_WORDS = 5
_SSH_FAILED = 255
_NOT_FOUND = (126, 127)
# a host that is silent for 15 s is gone, before and after the connection stands
_OPTIONS = {"ConnectTimeout": "15", "ServerAliveInterval": "5", "ServerAliveCountMax": "3"}
# $1: the interpreter, or nothing for our own environment or else the system's; $2: its program
_START_PYTHON = f"""p=$1
[ "$p" ] || {{ p="$HOME{ENVIRONMENT[1:]}/bin/python"; [ -x "$p" ] || p=python3; }}
case $p in "~"/*) p="$HOME/${{p#??}}";; esac
exec "$p" -c "$2"
"""
_INSTALL = """p=$1; e="$HOME/$2"; shift 2
case $p in "~"/*) p="$HOME/${p#??}";; esac
"$p" -m venv --clear "$e" && "$e/bin/python" -m pip install --disable-pip-version-check "$@" || {
  rm -rf "$e"; exit 1; }
"""
# What OpenSSH says -> what is the matter, and what to do.
_REASONS = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "its host key is not the one that you know it by",
        "Find out why: it may be another machine. `ssh-keygen -R HOST` forgets the known key.",
    ),
    (
        "Host key verification failed",
        "its host key is unknown",
        "Connect once with `ssh` yourself and compare the fingerprint that it shows.",
    ),
    (
        "Permission denied",
        "it does not let you in",
        "Check user and key: `ssh-copy-id` installs yours. `ssh -v` shows which were tried.",
    ),
    (
        r"Connection refused|No route to host|timed out|not resolve|unreachable|Name or service",
        "it cannot be reached",
        "Check that it is switched on, its name and its port, and that it runs an ssh server.",
    ),
)
_BROKEN = ("the connection broke", "Check the network, and try again.")


class SshDevice(PythonDevice):
    """`ssh://[user@]host[:port]`; `host` may be an alias of `~/.ssh/config`.

    Args:
        uri: Where.
        python: The interpreter over there; "" for the one of `mobiledeploy device setup`, or
            else python3. A leading ~ is the home over there.
        timeout_s: How long one session may take, and how long it may say nothing.
    """

    def __init__(self, uri: str, *, python: str = "", timeout_s: float = TIMEOUT_S) -> None:
        self._target = target_of(uri)
        self._python = python
        self._folder: Path | None = None
        super().__init__(uri, [], timeout_s=timeout_s)

    def __enter__(self) -> Self:
        """Connect and authenticate.

        Raises:
            RuntimeFailedError: there is no ssh client, or it does not get through.
        """
        # sockets have short names: the system's own /tmp, wherever TMPDIR points to
        self._folder = Path(tempfile.mkdtemp(prefix=f"mobiledeploy-ssh-{os.getpid()}-", dir="/tmp"))
        start = [_START_PYTHON, "sh", self._python, BOOTSTRAP]
        self._argv = [*self._ssh("ControlMaster=no"), shlex.join(["sh", "-c", *start])]
        try:
            with step(f"Connecting to {self.uri}"):
                self._connect()
        except BaseException:
            self._forget()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the connection."""
        self._forget()

    def explain(self, code: int, said: str, *, greeted: bool) -> MobileDeployError | None:
        """Return an error for what ssh itself, or the shell over there, complained about."""
        if code == _SSH_FAILED:
            return self._unreachable(said)
        if code in _NOT_FOUND and not greeted:
            return RuntimeFailedError(
                f"{self.uri} has no {self._python or 'python3'} that could be started.",
                remedy="Install Python 3.9 or later over there, or name one with --python.",
            )
        return None

    def install(self, requirements: list[str]) -> None:
        """Make the environment of our own over there, anew, and install into it.

        Raises:
            RuntimeFailedError: it did not work; nothing of it is left.
        """
        environment = ENVIRONMENT.removeprefix("~/")
        script = ["sh", "-c", _INSTALL, "sh", self._python or "python3", environment]
        argv = [*self._ssh("ControlMaster=no"), shlex.join([*script, *requirements])]
        with step(f"Installing over there: {', '.join(requirements)}"):
            done = _run(argv, timeout_s=self._timeout_s)
        if done.returncode:
            raise self.explain(done.returncode, done.stderr, greeted=True) or RuntimeFailedError(
                f"Installing on {self.uri} failed. Its last words:\n"
                f"{_last_words(done.stdout + done.stderr)}",
                remedy="Debian's Python needs the package python3-venv for this.",
            )

    def _ssh(self, *options: str) -> list[str]:
        assert self._folder is not None, "the device has not been entered"
        given = [f"{name}={value}" for name, value in _OPTIONS.items()]
        given += [f"ControlPath={self._folder}/connection", *options]
        return ["ssh", *(word for option in given for word in ("-o", option)), *self._target]

    def _connect(self) -> None:
        argv = self._ssh("ControlMaster=yes", f"ControlPersist={int(self._timeout_s) + 60}")
        done = _run([*argv, "true"], timeout_s=self._timeout_s)
        if done.returncode:
            raise self._unreachable(done.stderr)

    def _unreachable(self, said: str) -> RuntimeFailedError:
        known = [rest for pattern, *rest in _REASONS if re.search(pattern, said)]
        reason, remedy = known[0] if known else _BROKEN
        return RuntimeFailedError(
            f"{self.uri}: {reason}. ssh says:\n{_last_words(said)}", remedy=remedy
        )

    def _forget(self) -> None:
        """End the shared connection, if it stands, and remove its socket."""
        if self._folder is None:
            return
        with contextlib.suppress(RuntimeFailedError):  # no ssh: there is no connection either
            _run([*self._ssh(), "-O", "exit"], timeout_s=10)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None


def requirements(*, executorch: bool) -> list[str]:
    """Return what a device needs: the versions that this machine has."""
    names = ["numpy", "onnxruntime", *(("torch", "executorch") if executorch else ())]
    return [f"{name}=={version(name).partition('+')[0]}" for name in names]


def target_of(uri: str) -> list[str]:
    """Return ssh's arguments for `ssh://[user@]host[:port]`.

    Raises:
        UsageError: it is not such a URI.
    """
    parts = urlsplit(uri)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.password
    words = (parts.username or "user", host or "")
    if not host or rest or any(not word or word.startswith("-") for word in words):
        raise UsageError(
            f"{uri!r} is not a machine over ssh; expected ssh://[user@]host[:port].",
            remedy="Passwords are asked for by ssh itself; what else it needs to know belongs in "
            "~/.ssh/config.",
        )
    name = parts.netloc.rpartition("@")[2]  # as it was typed: aliases know upper case
    name = name if port is None else name.rpartition(":")[0]
    user = [] if parts.username is None else ["-l", parts.username]
    return [*user, *([] if port is None else ["-p", str(port)]), name.strip("[]")]


def _run(argv: list[str], *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run ssh; what it wants to know from the user it asks at the terminal."""
    with (
        tempfile.TemporaryFile("w+", errors="replace") as out,
        tempfile.TemporaryFile("w+", errors="replace") as log,
    ):
        # files, not pipes: the connection that stays in the background would keep a pipe open
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
                f"ssh was not done after {timeout_s:g} s and was stopped.",
                remedy="Give it longer with --timeout, or see with `ssh -v` what it waits for.",
            ) from None
        except OSError as error:
            raise RuntimeFailedError(
                f"ssh cannot be run: {error.strerror}.", remedy="Install OpenSSH's client."
            ) from error
        out.seek(0)
        log.seek(0)
        return subprocess.CompletedProcess(argv, code, out.read(), log.read())


def _last_words(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_LAST_WORDS:])
