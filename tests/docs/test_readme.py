"""What README and docs tell people to type: it exists, and what needs no network is run."""

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command

from mobiledeploy.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")})
COMMANDS = get_command(app).commands
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    page: Path
    info: str
    text: str


BLOCKS = [
    Block(page, match[1].strip(), match[2])
    for page in PAGES
    for match in FENCE.finditer(page.read_text())
]


def typed(block: Block) -> list[list[str]]:
    """Return the arguments of every `mobiledeploy ...` that a shell block holds."""
    commands = []
    for line in block.text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        simple: list[list[str]] = [[]]
        for token in lexer:
            if set(token) <= set("&|;<>()"):
                simple.append([])
            else:
                simple[-1].append(token)
        commands += [
            words[1:] for words in simple if words and Path(words[0]).name == "mobiledeploy"
        ]
    return commands


SHELL = [b for b in BLOCKS if b.info.split(" ")[0] in ("sh", "") and b.page.name != "cli.md"]
TYPED = [(block.page.name, words) for block in SHELL for words in typed(block)]
INLINE = [
    (page.name, shlex.split(code)[1:])
    for page in PAGES
    if page.name != "cli.md"
    for code in re.findall(r"`(mobiledeploy [^`\n]+)`", page.read_text())
    if not re.search(r"\.\.\.(?!\S)\s*$", code.replace("ARTIFACT...", "ARTIFACT"))
]


@pytest.mark.parametrize(("page", "words"), TYPED + INLINE, ids=lambda value: str(value)[:60])
def test_every_command_in_the_docs_exists_with_its_options(page: str, words: list[str]):
    if words and words[0].startswith("--"):
        assert words[0] in ("--help", "--version", "--verbose", "--debug"), page
        return
    assert words, page
    assert words[0] in COMMANDS, f"{page}: there is no `mobiledeploy {words[0]}`"
    command = COMMANDS[words[0]]
    if hasattr(command, "commands"):
        assert words[1] in command.commands, f"{page}: there is no `mobiledeploy {words[:2]}`"
        command = command.commands[words[1]]
    known = {
        option
        for parameter in command.params
        for option in (*parameter.opts, *parameter.secondary_opts)
    } | {"--help", "-h"}
    unknown = {w.split("=")[0] for w in words[1:] if w.startswith("-") and w != "-"} - known
    assert not unknown, f"{page}: `mobiledeploy {words[0]}` has no {unknown}"


def test_the_docs_hold_commands_to_check():
    assert len(TYPED) >= 10
    assert {words[0] for _, words in TYPED} >= {"export", "parity", "bench", "inspect", "doctor"}


def test_each_of_the_two_commands_is_one_line_that_keeps_cuda_out():
    first, second = [b.text for b in BLOCKS if b.page.name == "README.md" and b.info == "sh"][:2]
    for command in (first, second):
        assert command.count("\n") == 1
        steps = command.strip().split(" && ")
        torch = next(i for i, s in enumerate(steps) if "torch==" in s)
        assert "--no-deps" in steps[torch]
        assert "download.pytorch.org/whl/cpu" in steps[torch]
        assert ".venv/bin/pip install -e" in steps[torch + 1]
    assert first.rstrip().endswith(".venv/bin/mobiledeploy export v2 --int8 --format pte")
    assert second.rstrip().endswith(".venv/bin/pytest -n auto --dist loadfile")


def test_ci_installs_as_the_readme_says():
    install = "pip install {}--no-deps torch==2.13.0 --extra-index-url"
    assert install.format("") in (ROOT / "README.md").read_text()
    assert install.format("--quiet ") in (ROOT / ".ci" / "run").read_text()


def test_links_in_the_docs_lead_somewhere():
    for page in PAGES:
        text = FENCE.sub("", page.read_text())
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_tree_in_the_readme_is_the_tree():
    folders = set(re.findall(r"^\| `([\w/]+/)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert {f for f in folders if not (ROOT / f).is_dir()} == set()
    packages = {f"mobiledeploy/{p.parent.name}/" for p in ROOT.glob("mobiledeploy/*/__init__.py")}
    assert packages <= folders


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to stand in, with eight pictures in `photos`."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "photos").mkdir()
    generator = np.random.default_rng(1)
    for number in range(8):
        coarse = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((40, 40), Image.Resampling.BICUBIC)
        smooth.save(folder / "photos" / f"{number}.png")
    return folder


def test_the_runnable_commands_of_the_guide_run_in_order(mobiledeploy, photos: Path):
    runnable = [words for b in BLOCKS if b.info == "sh runnable" for words in typed(b)]
    assert [words[0] for words in runnable] == ["export", "parity", "bench", "inspect", "models"]
    for words in runnable:
        done = mobiledeploy(*words, cwd=photos)
        assert done.returncode == 0, f"{words}\n{done.stderr}"


@pytest.fixture(scope="module")
def fine_tuned(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to stand in, with what docs/fine-tuned.md says that its reader has."""
    folder = tmp_path_factory.mktemp("fine-tuned")
    for path in (*shared.glob("checkpoints/*.safetensors"), *shared.glob("data/cifar10/*.npz")):
        (folder / path.name).symlink_to(path)
    [classes] = [block.text for block in BLOCKS if block.info == "text classes.txt"]
    (folder / "classes.txt").write_text(classes)
    return folder


def documented(network: str) -> dict[str, str]:
    """Return a row of the table of docs/fine-tuned.md by its headings."""
    lines = (ROOT / "docs" / "fine-tuned.md").read_text().splitlines()
    heading = next(line for line in lines if line.startswith("| network |"))
    row = next(line for line in lines if line.startswith(f"| {network} |"))
    cells = ([cell.strip() for cell in line.split("|")] for line in (heading, row))
    return dict(zip(*cells, strict=True))


def run_all(mobiledeploy, info: str, folder: Path) -> list[str]:
    """Run the commands of all blocks of this kind in order; return what they said."""
    said = []
    for words in (words for block in BLOCKS if block.info == info for words in typed(block)):
        done = mobiledeploy(*words, cwd=folder)
        assert done.returncode == 0, f"{words}\n{done.stderr}"
        said.append(done.stderr)
    return said


def check_figures(parity: str, network: str) -> None:
    """Hold what `parity` said to the documented figures: no logit differs, and none is worse."""
    told = documented(network)
    assert parity.count("0 of 10000 differ") == 2  # ONNX Runtime and ExecuTorch
    sqnr, agreement = re.search(r"integers +float +([\d.]+) dB, ([\d.]+)", parity).groups()
    assert float(sqnr) >= float(told["SQNR"].removesuffix(" dB")) - 0.5
    assert float(agreement) >= float(told["agreement"]) - 0.005


@pytest.mark.shared
def test_the_worked_example_runs_from_checkpoint_to_parity(
    mobiledeploy, fine_tuned: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    export, parity, inspect = run_all(mobiledeploy, "sh cifar10", fine_tuned)
    [(found, used)] = [
        block.text.splitlines()
        for block in BLOCKS
        if block.page.name == "fine-tuned.md" and block.info == "text"
    ]
    unwrapped = " ".join(export.split())
    assert found.strip() in unwrapped
    assert used.strip() in unwrapped
    check_figures(parity, "V3-Small")
    assert "airplane, automobile, bird" in inspect
    assert "'resize_short_side': 64, 'center_crop': 64" in inspect
    [code] = [block.text for block in BLOCKS if block.info == "python cifar10"]
    monkeypatch.chdir(fine_tuned)
    exec(compile(code, "fine-tuned.md", "exec"), {})
    name, top1 = capsys.readouterr().out.split()
    assert name in (fine_tuned / "classes.txt").read_text().split()
    assert float(top1) >= float(documented("V3-Small")["int8 top-1"]) - 0.005


@pytest.mark.shared
@pytest.mark.slow
def test_the_worked_examples_other_checkpoints_run_too(mobiledeploy, fine_tuned: Path):
    _, v1, _, v3_large = run_all(mobiledeploy, "sh cifar10 others", fine_tuned)
    check_figures(v1, "V1 0.5")
    check_figures(v3_large, "V3-Large")


def test_the_python_of_the_readme_runs(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    [code] = [b.text for b in BLOCKS if b.info == "python" and "mobiledeploy.deploy" in b.text]
    monkeypatch.chdir(photos)
    exec(compile(code, "README.md", "exec"), {})
    said = capsys.readouterr().out.splitlines()
    assert [Path(line.split()[0]).suffix for line in said] == [".pte", ".onnx"]


def test_what_the_readme_says_about_metadata_is_what_artifacts_hold(mobiledeploy, photos: Path):
    words = next(w for b in BLOCKS if b.info == "sh runnable" for w in typed(b))
    artifact = photos / "exports" / "mobilenet_v2_0.25_32-10classes-random-int8.onnx"
    if not artifact.exists():
        assert mobiledeploy(*words, cwd=photos).returncode == 0
    done = mobiledeploy("inspect", artifact, "--json", cwd=photos)
    document = json.loads(done.stdout)
    assert [tensor["name"] for tensor in document["inputs"]] == ["input"]
    assert [tensor["name"] for tensor in document["outputs"]] == ["logits"]
    told = document["metadata"]["input"]
    assert {"resize_short_side", "center_crop", "mean", "std"} <= set(told)


def test_shell_blocks_are_valid_shell():
    for block in SHELL:
        if block.info.startswith("sh"):
            text = block.text.replace("<this repository>", "repository")
            subprocess.run(["bash", "-n", "-c", text], check=True)
