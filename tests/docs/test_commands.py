"""Every command in README and docs exists with its options; the runnable ones run."""

import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from markdown_blocks import BLOCKS, DOCS, FENCE, GENERATED, PAGES, SHELL, commands_in
from PIL import Image
from typer.main import get_command

from mobiledeploy.cli import app

COMMANDS = get_command(app).commands
IN_BLOCKS = [(block.page.name, words) for block in SHELL for words in commands_in(block)]
IN_TEXT = [
    (page.name, shlex.split(code)[1:])
    for page in PAGES
    if page.name not in GENERATED
    for code in re.findall(r"`(mobiledeploy [^`\n]+)`", FENCE.sub("", page.read_text()))
    if not re.search(r"\.\.\.(?!\S)\s*$", code.replace("ARTIFACT...", "ARTIFACT"))
]


@pytest.mark.parametrize(("page", "words"), IN_BLOCKS + IN_TEXT, ids=lambda value: str(value)[:60])
def test_every_command_exists_with_its_options(page: str, words: list[str]):
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


def test_commands_were_found():
    assert len(IN_BLOCKS) >= 30
    assert {words[0] for _, words in IN_BLOCKS} >= {"export", "parity", "bench", "inspect"}


def test_shell_blocks_are_valid_shell():
    for block in SHELL:
        if block.language == "sh":
            text = re.sub("<[a-z ]+>", "placeholder", block.text)
            subprocess.run(["bash", "-n", "-c", text], check=True)


def test_links_lead_to_files():
    for page in PAGES:
        text = FENCE.sub("", page.read_text())
        for target in re.findall(r"\]\((?!https?://)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_named_benchmarks_and_tests_exist():
    """A figure is worth as much as the command that it names."""
    for page in PAGES:
        if page.parent.name == "decisions":
            continue  # records name files of their day
        for path in re.findall(r"(?:benchmarks|tests|scripts)/[\w/.-]*\w", page.read_text()):
            assert (DOCS.parent / path).exists(), f"{page.name} names {path}"


def test_every_results_page_names_a_command():
    for page in sorted((DOCS / "results").glob("*.md")):
        if page.name != "index.md":
            assert any(b.page == page and b.language == "sh" for b in BLOCKS), page.name


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
def test_the_runnable_commands_of_the_tutorial_run_in_order(mobiledeploy, photos: Path):
    runnable = [words for b in BLOCKS if b.mark == "runnable" for words in commands_in(b)]
    assert [words[0] for words in runnable] == ["export", "parity", "bench", "inspect", "models"]
    for words in runnable:
        done = mobiledeploy(*words, cwd=photos)
        assert done.returncode == 0, f"{words}\n{done.stderr}"


def test_code_fences_name_a_language_and_nothing_else():
    """The site does not render a fence with a second word as code."""
    for block in BLOCKS:
        assert re.fullmatch(r"[\w+-]*", block.language), f"{block.page.name}: ```{block.language}"
