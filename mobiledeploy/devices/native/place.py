"""The native runner on a device: install it, start it, remove it.

Each version of the runner has a folder of its own. A folder is complete: files arrive in a hidden
one, which is renamed when all their sha256 are right. The scripts need a POSIX shell, `tar`,
`gzip` and `sha256sum`, which Linux boards and Android have.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledeploy.devices.command_output import last_output
from mobiledeploy.devices.native.bundle import SUMS, runner_folder
from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.progress import step

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobiledeploy.devices.native.bundle import Bundle

# sets $h to the folder that $1 names
FIND_HOME = 'h=$1; case $h in "~"/*) h="$HOME/${h#??}";; esac\n'
# $1: the runner's folder; $2: where its temporary files go, "" for the system's choice
START = (
    FIND_HOME
    + """[ -e "$h/runner" ] || { echo mobiledeploy-has-no-runner >&2; exit 127; }
[ -z "$2" ] || export TMPDIR="$2"
l=$(echo "$h"/ld-linux-*)
exec "$l" --library-path "$h" "$h/runner"
"""
)
_DONE = "mobiledeploy-done"
# $1: home; $2: the folder's name; $3: the sha256 of the list of sha256; the input is a .tar.gz
_INSTALL = (
    FIND_HOME
    + f"""mkdir -p "$h" && rm -rf "$h"/.runner-* && p="$h/.$2" && mkdir "$p" && cd "$p" || exit 1
trap 'cd /; rm -rf "$p"' EXIT HUP TERM
tar xzf - || exit 1
case $(sha256sum {SUMS}) in "$3"*) ;; *) echo "{SUMS} arrived damaged" >&2; exit 1;; esac
sha256sum -c {SUMS} > /dev/null || {{ echo "the files arrived damaged" >&2; exit 1; }}
rm -rf "$h/$2" && mv "$p" "$h/$2" && echo {_DONE}
"""
)
_CURRENT = FIND_HOME + f'sha256sum "$h/$2/{SUMS}" 2>/dev/null; echo {_DONE}\n'
_CLEAN = (
    FIND_HOME
    + f"""for d in "$h"/runner-* "$h"/.runner-*; do
[ -d "$d" ] && rm -rf "$d" && echo "removed $d"
done
rmdir "$h" 2> /dev/null
echo {_DONE}
"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerPlace:
    """Where a device keeps native runners.

    Attributes:
        uri: The device's name in errors.
        home: The folder on the device that holds the runners' folders.
        command: Turns an argv for the device into one that runs it from here.
        timeout_s: How long one command may take.
    """

    uri: str
    home: str
    command: Callable[[list[str]], list[str]]
    timeout_s: float

    @property
    def folder(self) -> str:
        """Return the folder of this version of the runner."""
        return f"{self.home}/{runner_folder()}"

    def has(self, bundle: Bundle) -> bool:
        """Return whether the device has this bundle, whole.

        Raises:
            RuntimeFailedError: The device cannot be reached.
        """
        return self.sums_sha256() == bundle.sums_sha256

    def sums_sha256(self) -> str:
        """Return the sha256 of the list of sha256 of the installed bundle; "" if there is none.

        Raises:
            RuntimeFailedError: The device cannot be reached.
        """
        first = self._run(_CURRENT, runner_folder()).split()[0]
        return "" if first == _DONE else first

    def install(self, bundle: Bundle) -> int:
        """Send a bundle and check it there; return the number of bytes sent.

        A folder of the same version is replaced. If anything fails, the device keeps what it had.

        Raises:
            RuntimeFailedError: The device cannot be reached, its disk is full, or the files arrived
                damaged.
        """
        packed = bundle.pack()
        with step(f"Installing the native runner on {self.uri} ({len(packed) / 1e6:.1f} MB)"):
            self._run(_INSTALL, runner_folder(), bundle.sums_sha256, sent=packed)
        return len(packed)

    def clean(self) -> list[str]:
        """Remove all versions of the runner; return the folders that were removed.

        Raises:
            RuntimeFailedError: The device cannot be reached.
        """
        lines = self._run(_CLEAN).splitlines()
        return [line.removeprefix("removed ") for line in lines if line.startswith("removed ")]

    def _run(self, script: str, *arguments: str, sent: bytes = b"") -> str:
        """Run a script on the device; return its output.

        Raises:
            RuntimeFailedError: It failed, or its end did not arrive.
        """
        argv = self.command(["sh", "-c", script, "sh", self.home, *arguments])
        with tempfile.TemporaryFile() as given:
            given.write(sent)
            given.seek(0)
            try:
                done = subprocess.run(  # noqa: S603 - an argv, no shell here
                    argv, stdin=given, capture_output=True, timeout=self.timeout_s, check=False
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise RuntimeFailedError(
                    f"The native runner on {self.uri} could not be reached: {error}.",
                    remedy="Check the connection, or raise --timeout.",
                ) from error
        output = done.stdout.decode(errors="replace")
        if _DONE not in output:
            told = output + done.stderr.decode(errors="replace")
            raise RuntimeFailedError(
                f"{self.uri} could not install or find the native runner (exit code "
                f"{done.returncode}).{last_output(told)}",
                remedy="Check the connection and the device's free space, and try again. Nothing "
                "half-installed is used.",
            )
        return output


def explain_start(uri: str, code: int, output: str) -> RuntimeFailedError:
    """Return an error for a native runner that did not start."""
    if "mobiledeploy-has-no-runner" in output:
        return RuntimeFailedError(
            f"{uri} has no native runner of this version.",
            remedy=f"Run `mobiledeploy device setup {uri}`.",
        )
    return RuntimeFailedError(
        f"The native runner on {uri} ended with code {code} before it started."
        f"{last_output(output)}",
        remedy="Check that the device may run programs from that folder (no `noexec`, no policy "
        f"against it), and run `mobiledeploy device setup {uri}` again.",
    )
