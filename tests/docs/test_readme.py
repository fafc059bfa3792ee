"""The README: its two commands, its Python, its pictures, and what it says about artifacts."""

import json
import os
import re
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_blocks import BLOCKS, DOCS, README, ROOT, commands_in
from PIL import Image

TEXT = README.read_text(encoding="utf-8")
FIRST, SECOND = [b.text.strip() for b in BLOCKS if b.page == README and b.language == "sh"][:2]
INSTALL = "pip install {}--no-deps torch==2.13.0 --extra-index-url"
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
case "$(basename "$0") $*" in
git*) mkdir -p "$3/mobiledeploy" ;;  # a clone has a folder with the name of the package
python3*)
  mkdir -p .venv/bin
  for name in pip mobiledeploy pytest; do cp "$0" .venv/bin/$name; done ;;
esac
"""


def test_each_command_is_one_line_that_installs_torch_without_cuda():
    assert "\n" not in FIRST
    assert "\n" not in SECOND
    steps = FIRST.split(" && ")
    torch = next(i for i, step in enumerate(steps) if "torch==" in step)
    assert "--no-deps" in steps[torch]
    assert "download.pytorch.org/whl/cpu" in steps[torch]
    assert ".venv/bin/pip install -e" in steps[torch + 1]
    assert steps[-1] == ".venv/bin/mobiledeploy export v2 --int8 --format pte"
    assert SECOND.endswith(".venv/bin/pytest -n auto --dist loadfile")


@pytest.mark.parametrize("shell", ["bash", "sh"])
@pytest.mark.parametrize("second_in", [".", "mobiledeploy"], ids=["new terminal", "same terminal"])
def test_the_commands_work_one_after_the_other(tmp_path: Path, shell: str, second_in: str):
    """With stand-ins for git, python3 and what they install."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("git", "python3"):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    log = tmp_path / "log"
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "LOG": str(log),
        "REPOSITORY": "somewhere",
    }
    for command, folder in ((FIRST, tmp_path), (SECOND, tmp_path / second_in)):
        subprocess.run([shell, "-c", command], cwd=folder, env=environment, check=True)
    calls = [line.split()[0] for line in log.read_text().splitlines()]
    assert calls == ["git", "python3", "pip", "pip", "mobiledeploy", "pip", "pytest"]


def test_ci_installs_like_the_readme():
    assert INSTALL.format("") in TEXT
    assert INSTALL.format("--quiet ") in (ROOT / ".ci" / "run").read_text()


def test_the_readme_states_the_supported_python_versions():
    supported = re.search(
        r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text()
    )
    oldest, above = map(int, supported.groups())
    assert f"Python 3.{oldest} to 3.{above - 1}" in TEXT


def test_pictures_are_there_and_well_formed():
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+\.svg)\)", TEXT)
    assert len(pictures) == 2
    for picture in pictures:
        assert ElementTree.parse(ROOT / picture).getroot().tag.endswith("svg")


def test_the_results_of_the_chart_are_those_of_the_page():
    document = json.loads((DOCS / "results" / "stock-quantizers.json").read_text())
    page = (DOCS / "results" / "stock-quantizers.md").read_text()
    assert document["command"] in page
    assert len(document["artifacts"]) == 5
    for artifact in document["artifacts"]:
        row = next(
            line
            for line in page.splitlines()
            if line.startswith(f"| {artifact['quantizer']}, `.{artifact['format']}` |")
        )
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        sqnr = artifact["sqnr_db"]
        assert cells == [
            f"{artifact['top1']:.3f}",
            f"{artifact['agreement']:.3f}",
            "" if sqnr is None else f"{sqnr:.1f} dB",
            f"{artifact['size_bytes'] / 1e6:.2f} MB",
            f"{artifact['ratio']:.3f}",
        ]


def test_the_code_layout_lists_every_package():
    page = (DOCS / "explanation" / "code-layout.md").read_text()
    folders = set(re.findall(r"^\| `([\w/]+/)` \|", page, re.MULTILINE))
    assert {folder for folder in folders if not (ROOT / folder).is_dir()} == set()
    packages = {f"mobiledeploy/{p.parent.name}/" for p in ROOT.glob("mobiledeploy/*/__init__.py")}
    assert packages <= folders


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with eight images in `photos`."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "photos").mkdir()
    generator = np.random.default_rng(1)
    for number in range(8):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)
        smooth.save(folder / "photos" / f"{number}.png")
    return folder


@pytest.mark.ci
def test_the_python_of_the_readme_runs(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    [code] = [b.text for b in BLOCKS if b.page == README and b.language == "python"]
    monkeypatch.chdir(photos)
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert [Path(line.split()[0]).suffix for line in printed] == [".pte", ".onnx"]


@pytest.mark.ci
def test_artifacts_hold_the_metadata_that_the_guide_for_apps_names(mobiledeploy, photos: Path):
    words = next(w for b in BLOCKS if b.mark == "runnable" for w in commands_in(b))
    assert mobiledeploy(*words, cwd=photos).returncode == 0
    artifact = photos / "exports" / "mobilenet_v2_0.25_32-10classes-random-int8.onnx"
    done = mobiledeploy("inspect", artifact, "--json", cwd=photos)
    document = json.loads(done.stdout)
    assert [tensor["name"] for tensor in document["inputs"]] == ["input"]
    assert [tensor["name"] for tensor in document["outputs"]] == ["logits"]
    page = (DOCS / "how-to" / "use-in-an-app.md").read_text()
    for key in ("resize_short_side", "center_crop", "mean", "std"):
        assert key in document["metadata"]["input"]
        assert f"`{key}`" in page
