"""docs/reference/api.md agrees with the docstrings."""

import re
import runpy
from pathlib import Path

import pytest

import mobiledeploy


def test_the_api_reference_is_generated_from_the_docstrings(
    repository: Path, request: pytest.FixtureRequest
):
    generator = runpy.run_path(str(repository / "docs" / "generate_api.py"))
    page: Path = generator["PATH"]
    if request.config.getoption("--regen"):
        page.write_text(generator["reference"]())
    assert page.read_text() == generator["reference"](), (
        "docs/reference/api.md is out of date: run `python docs/generate_api.py`"
    )


def test_every_public_name_is_in_the_reference(repository: Path):
    text = (repository / "docs" / "reference" / "api.md").read_text()
    headings = set(re.findall(r"^### (\w+)$", text, re.MULTILINE))
    assert set(mobiledeploy.__all__) - {"__version__"} <= headings
