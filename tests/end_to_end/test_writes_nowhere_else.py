"""Commands write to `--out`, to the cache and to TMPDIR, which is empty afterwards."""

import os
import subprocess
import sys

import pytest
from tiny import NETWORK

from mobiledeploy.devices import agent


def listed(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.ci
def test_an_export_writes_to_out_and_to_the_cache_only(mobiledeploy, workplace, tmp_path):
    home, cache, temporary, work = (tmp_path / name for name in ("home", "cache", "tmp", "work"))
    for folder in (home, temporary, work):
        folder.mkdir()
    environment = {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "TMPDIR": str(temporary),
        "MOBILEDEPLOY_CACHE": str(cache),
    }
    options = ("--calib-data", workplace / "pictures", "--format", "pte", "--format", "onnx")
    export = ("export", "v2", *NETWORK, "--int8", *options, "--out", "out")
    before = listed(workplace / "pictures")
    done = mobiledeploy(*export, cwd=work, env=environment)
    assert done.returncode == 0, done.stderr
    (pte,) = (work / "out").glob("*.pte")
    onnx = pte.with_suffix(".onnx")
    page = ("--html", "page.html")  # its charts are matplotlib's
    for command in (("parity", onnx, *page), ("inspect", pte), ("bench", onnx, "--runs", 2)):
        done = mobiledeploy(*command, cwd=work, env=environment)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "home", "tmp", "work"}
    assert listed(work) == [
        "out",
        *sorted(f"out/{name}" for path in (onnx, pte) for name in (path.name, f"{path.name}.json")),
        "page.html",
    ]
    assert listed(home) == []
    assert listed(temporary) == []
    assert listed(workplace / "pictures") == before


@pytest.mark.parametrize("where", ["package", "agent"])
def test_onnx_runtime_leaves_no_id_of_the_machine(tmp_path, where):
    """Importing ONNX Runtime writes into the cache folder if its telemetry is on."""
    code = "import mobiledeploy, onnxruntime"
    if where == "agent":
        loader, _, _ = agent._LOADER.partition("if sys.version_info")
        code = f"{loader}\nimport onnxruntime"
    environment = {name: value for name, value in os.environ.items() if "TELEMETRY" not in name}
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert listed(tmp_path) == []
