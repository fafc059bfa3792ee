"""Shell completion of model names, weights, formats and presets."""

import os
import subprocess
from pathlib import Path

import pytest

from mobiledeploy.models.spec import FAMILIES


@pytest.fixture
def complete(console_script: Path):
    """Return what a shell is offered for the last of some words."""

    def offered(shell: str, *words: str) -> str:
        line = " ".join(("mobiledeploy", *words))
        environment = {
            "_MOBILEDEPLOY_COMPLETE": f"complete_{shell}",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words)),
            "_TYPER_COMPLETE_ARGS": line,
        }
        done = subprocess.run(
            [console_script],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout

    return offered


@pytest.mark.parametrize("command", ["export", "models", "sensitivity"])
def test_bash_completes_model_names(complete, command):
    assert complete("bash", command, "v").split() == list(FAMILIES)
    assert complete("bash", command, "v3-s").split() == ["v3-small"]


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("export", "v2", "--format", "o"), ["onnx"]),
        (("export", "v2", "--ptq", "b"), ["balanced", "best"]),
        (("export", "v2", "--weights", "im"), ["imagenet"]),
        (("export", "v2", "--weights", "./my.pt"), []),  # the shell completes paths
        (("sensitivity", "v2", "--interpolation", "bic"), ["bicubic"]),
        (("rep",), ["reproduce"]),
    ],
)
def test_bash_completes_option_values_and_commands(complete, words, offered):
    assert complete("bash", *words).split() == offered


def test_zsh_completes_model_names_and_describes_weights(complete):
    completed = complete("zsh", "export", "v")
    assert [name for name in FAMILIES if f'"{name}"' not in completed] == []
    assert '"imagenet":"published ImageNet weights' in complete("zsh", "export", "--weights", "i")


def test_bash_offers_the_names_after_sourcing_the_script(console_script: Path):
    script = f"""
    PATH={console_script.parent}:$PATH
    eval "$(_MOBILEDEPLOY_COMPLETE=source_bash mobiledeploy)"
    COMP_WORDS=(mobiledeploy export v3) COMP_CWORD=2
    _mobiledeploy_completion mobiledeploy
    echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "v3-large v3-small\n"
