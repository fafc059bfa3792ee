"""docs/reference/weights.md and docs/reference/images.md agree with the code."""

from pathlib import Path

import pytest

from mobiledeploy.checkpoints import dialects, published, read, unwrap
from mobiledeploy.checkpoints import hub as fetch
from mobiledeploy.checkpoints.registry import registry
from mobiledeploy.data.images import SUFFIXES as IMAGES
from mobiledeploy.utils import files

DOCS = Path(__file__).parents[2] / "docs" / "reference"


@pytest.mark.parametrize("family", published.PUBLISHED)
def test_every_published_file_is_listed_with_its_preprocessing(family):
    file = published.PUBLISHED[family]
    lines = (DOCS / "weights.md").read_text().splitlines()
    (line,) = [line for line in lines if f"`{file.filename}`" in line]
    assert f"crop {file.preprocessing.crop_pct}" in line
    assert file.preprocessing.interpolation in line
    assert ("mean and std 0.5" in line) == (file.preprocessing.mean == (0.5, 0.5, 0.5))


def test_every_published_name_is_listed_with_its_accuracy():
    text = (DOCS / "weights.md").read_text()
    for name, checkpoint in registry().items():
        known = {64: "full", 8: "8 digits", 0: "no"}[len(checkpoint.sha256)]
        figures = f"{checkpoint.resolution} | {checkpoint.top1:.4f} | {known}"
        assert f"| `{name}` | {checkpoint.family} | {figures} |" in text


def test_every_accepted_name_is_listed():
    text = (DOCS / "weights.md").read_text()
    names = [
        *read.SUFFIXES,
        *(name for name in unwrap._CONTAINERS if name != "shadow"),
        *(f"{prefix}." for prefix in unwrap._PREFIXES),
        files.CACHE_VARIABLE,
        fetch.URL_VARIABLE,
    ]
    assert [name for name in names if f"`{name}`" not in text] == []


def test_every_dialect_is_listed():
    text = (DOCS / "weights.md").read_text()
    known = [value for value in vars(dialects).values() if isinstance(value, dialects.Dialect)]
    assert len(known) == 4
    assert [dialect.name for dialect in known if f"| {dialect.name} " not in text] == []


def test_every_image_format_is_listed():
    text = (DOCS / "images.md").read_text()
    assert [suffix for suffix in IMAGES if f"`{suffix}`" not in text] == []
