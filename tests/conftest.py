"""Fixtures for all tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the command line does, before torch and numpy are imported

import torch  # noqa: E402

from mobiledeploy.utils.quiet import quietly  # noqa: E402

with quietly():  # it warns on import, which would be the first thing that pytest prints
    import torchao.quantization.pt2e  # noqa: F401

pytest_plugins = ("exported_networks", "small_artifacts")

# with several threads, tiny networks only spend more time on waiting
torch.set_num_threads(1)

# a background job of a script and nohup ignore these signals, and so would the commands that tests
# start and stop with them
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGTERM, signal.SIG_DFL)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regen", action="store_true", help="write generated files instead of comparing them"
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with measurement images, checkpoints and reference results, if there is one."""
    value = os.environ.get("MOBILEDEPLOY_SHARED")
    if not value:
        pytest.skip("MOBILEDEPLOY_SHARED is not set")
    return Path(value).resolve()


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def console_script() -> Path:
    """The installed `mobiledeploy` command."""
    return Path(sys.executable).parent / "mobiledeploy"


@pytest.fixture(scope="session")
def offline_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment without network and without cached weights."""
    foreign = {"TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR"}  # importing torchao sets the first one
    inherited = {name: each for name, each in os.environ.items() if name not in foreign}
    return inherited | {
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "80",
        "MOBILEDEPLOY_CACHE": str(tmp_path_factory.mktemp("empty-cache")),
        "MOBILEDEPLOY_WEIGHTS_URL": "http://127.0.0.1:9",  # the discard port: nothing listens
        "no_proxy": "*",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(tmp_path_factory.mktemp("no-wheels")),
    }


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def mobiledeploy(console_script: Path, offline_environment: dict[str, str]) -> Command:
    """A function that runs the installed command: `mobiledeploy("export", "v2", cwd=folder)`."""

    def run(
        *arguments: object, cwd: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [console_script, *map(str, arguments)],
            cwd=cwd,
            env=offline_environment | dict(env or {}),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run
