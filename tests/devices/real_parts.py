"""Programs that the tests of devices need, and what happens if one is missing."""

import os
import shutil
from pathlib import Path

import pytest

# Three processors with three sets of int8 kernels: NEON, dot products, matrix products.
ARM_PROCESSORS = {"cortex-a53": set(), "cortex-a76": {"dotprod"}, "max": {"dotprod", "i8mm"}}


def missing(what: str, remedy: str) -> None:
    """Skip the test, or fail if MOBILEDEPLOY_REQUIRE_DEVICES is set."""
    if os.environ.get("MOBILEDEPLOY_REQUIRE_DEVICES"):
        pytest.fail(f"{what} is missing: {remedy}")
    pytest.skip(f"{what} is missing: {remedy}")


def program(name: str, package: str) -> str:
    """Return the path of a program; skip or fail without it."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    if found is None:
        missing(name, f"apt-get install {package}")
    return found


def connections(pid: int) -> list[Path]:
    """Return the folders with the sockets of a process's shared ssh connections."""
    return list(Path("/tmp").glob(f"mobiledeploy-ssh-{pid}-*"))
