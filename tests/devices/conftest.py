"""Real parts: ARM64 code under QEMU, an ssh server, the adb client.

Where a part is missing the tests that need it are skipped; with MOBILEDEPLOY_REQUIRE_DEVICES, which
.ci/run sets, they fail.
"""

import os
import shutil
from pathlib import Path

import pytest
from sshd import start as start_sshd

# Three processors, three sets of int8 kernels: plain NEON; dot products; matrix products.
ARM_PROCESSORS = {"cortex-a53": set(), "cortex-a76": {"dotprod"}, "max": {"dotprod", "i8mm"}}


def missing(what: str, remedy: str) -> None:
    """Skip for want of something, or fail where it has to be there."""
    if os.environ.get("MOBILEDEPLOY_REQUIRE_DEVICES"):
        pytest.fail(f"{what} is missing: {remedy}")
    pytest.skip(f"{what} is missing: {remedy}")


def program(name: str, package: str) -> str:
    """Return the path of a program."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if found is None:
        missing(name, f"apt-get install {package}")
    return found


@pytest.fixture(scope="session")
def arm64():
    """Return the URI of an ARM64 Python, given the processor."""
    qemu = program("qemu-aarch64-static", "qemu-user-static")
    root = os.environ.get("MOBILEDEPLOY_ARM64_ROOT")
    if not root:
        missing("MOBILEDEPLOY_ARM64_ROOT", "scripts/arm64-root FOLDER builds such a folder")
    python = Path(root) / "usr" / "bin" / "python3"
    return lambda processor: f"exec:{qemu} -cpu {processor} -L {root} {python}"


@pytest.fixture(scope="session")
def ssh_server(tmp_path_factory):
    """A real ssh server that knows our key; our client knows its host key."""
    sshd = program("sshd", "openssh-server")
    program("ssh", "openssh-client")
    server, process = start_sshd(tmp_path_factory.mktemp("sshd"), sshd)
    yield server
    process.terminate()
    process.wait()


@pytest.fixture
def ssh(ssh_server, monkeypatch):
    """The server, reached by the real client with our own configuration; nothing may stay there."""
    monkeypatch.setenv("PATH", f"{ssh_server.folder}/bin:{os.environ['PATH']}")
    ssh_server.configure_client()
    before = set(Path("/tmp").glob("mobiledeploy-ssh-*"))
    yield ssh_server
    assert list(ssh_server.tmp.iterdir()) == []
    assert set(Path("/tmp").glob("mobiledeploy-ssh-*")) == before
