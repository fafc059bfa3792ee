"""Other libraries leave nothing in TMPDIR and in the home folder."""

import os
import subprocess
import sys

import pytest

from mobiledeploy.utils.foreign_files import place_foreign_files

LOAD = """
from mobiledeploy.utils.foreign_files import place_foreign_files

place_foreign_files()
import matplotlib.font_manager
import torchao.quantization.pt2e
"""
VARIABLES = ("TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR")


@pytest.mark.ci
def test_nothing_is_left_outside_of_the_cache(tmp_path):
    folders = [tmp_path / name for name in ("tmp", "home", "cache")]
    for folder in folders:
        folder.mkdir()
    names = ("TMPDIR", "HOME", "MOBILEDEPLOY_CACHE")
    environment = {
        name: each
        for name, each in os.environ.items()
        if name not in VARIABLES and not name.startswith("XDG_")
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD],
        env=environment | dict(zip(names, map(str, folders), strict=True)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [[path.name for path in folder.iterdir()] for folder in folders] == [
        [],
        [],
        ["matplotlib"],
    ]


def test_the_user_s_folders_are_kept(monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, "/mine")
    place_foreign_files()
    assert [os.environ[name] for name in VARIABLES] == ["/mine"] * 2
