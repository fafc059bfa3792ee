"""docs/reference/models.md and docs/how-to/own-architecture.md agree with the code."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from mobiledeploy.models.config import load_config
from mobiledeploy.models.published_sizes import published
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.models.summary import summarize

DOCS = Path(__file__).parents[2] / "docs"
REFERENCE = (DOCS / "reference" / "models.md").read_text(encoding="utf-8")
HOW_TO = (DOCS / "how-to" / "own-architecture.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", HOW_TO, re.DOTALL)


@pytest.mark.ci
def test_the_table_of_sizes_agrees_with_the_code():
    for spec in published():
        summary = summarize(spec)
        options = ", ".join(f"`{k}: {v}`" for k, v in spec.architecture.changed.items())
        row = (
            f"| {spec.family} | {spec.width} | {options} | {summary.params:,} "
            f"| {summary.macs / 1e6:.2f} | {summary.fp32_bytes / 1e6:.2f} "
            f"| {summary.int8_bytes / 1e6:.2f} |"
        )
        assert row in REFERENCE


def test_every_architecture_option_is_documented():
    for option in fields(ModelSpec(family="v2").architecture):
        assert f"| `{option.name}` |" in REFERENCE


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_configuration_in_the_guide_builds(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert summarize(load_config(path)).params > 0


def test_the_guide_has_four_configurations():
    assert len(blocks("yaml")) == 4


def test_the_python_in_the_guide_runs(capsys):
    (code,) = blocks("python")
    exec(compile(code, "docs/how-to/own-architecture.md", "exec"), {})
    assert int(capsys.readouterr().out) > 0
