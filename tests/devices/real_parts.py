"""What the tests need of this machine, and what happens where it is missing."""

import os
import shutil
from pathlib import Path

import pytest

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


def connections(pid: int) -> list[Path]:
    """Return the folders in which the shared ssh connections of a process have their sockets."""
    return list(Path("/tmp").glob(f"mobiledeploy-ssh-{pid}-*"))
