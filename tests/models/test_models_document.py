"""docs/models.md says what the code does."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from mobiledeploy.models.config import load_config
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.models.summary import published, summarize

DOCUMENT = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def test_the_table_of_sizes_is_what_the_code_counts():
    for spec in published():
        summary = summarize(spec)
        options = ", ".join(f"`{k}: {v}`" for k, v in spec.architecture.changed.items())
        row = (
            f"| {spec.family} | {spec.width} | {options} | {summary.params:,} "
            f"| {summary.macs / 1e6:.2f} | {summary.fp32_bytes / 1e6:.2f} "
            f"| {summary.int8_bytes / 1e6:.2f} |"
        )
        assert row in DOCUMENT


def test_every_architecture_option_is_documented():
    for option in fields(ModelSpec(family="v2").architecture):
        assert f"| `{option.name}` |" in DOCUMENT


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_configuration_shown_builds(text, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    assert summarize(load_config(path)).params > 0


def test_there_is_a_configuration_of_each_kind():
    assert len(blocks("yaml")) == 3


def test_the_python_shown_runs(capsys):
    (code,) = blocks("python")
    exec(compile(code, "docs/models.md", "exec"), {})
    assert int(capsys.readouterr().out) > 0
