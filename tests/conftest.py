"""Fixtures that every test may use."""

import os
from pathlib import Path

import pytest

pytest_plugins = ("small_artifacts",)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with measurement images, checkpoints and oracles; absent on most machines."""
    value = os.environ.get("MOBILEDEPLOY_SHARED")
    if not value:
        pytest.skip("MOBILEDEPLOY_SHARED is not set")
    return Path(value).resolve()
