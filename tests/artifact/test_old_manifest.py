"""An artifact and its manifest as version 0.1.0 wrote them, with schema 1.

`schema1/` was made with mobiledeploy 0.1.0, before the manifest's fields were renamed:

    mobiledeploy export v2 --int8 --config tests/end_to_end/tiny.yml --format onnx
"""

import json
import shutil
from pathlib import Path

import pytest

from mobiledeploy.artifact.manifest import parse_manifest, read_manifest
from mobiledeploy.errors import ArtifactError
from mobiledeploy.pipeline.check_parity import check_parity
from mobiledeploy.pipeline.reproduce import reproduce
from mobiledeploy.stages import QuantRecipe

FOLDER = Path(__file__).with_name("schema1")
NAME = "mobilenet_v2_0.25_32-rowsd2a361d9-10classes-random-int8.onnx"
DOCUMENT = json.loads((FOLDER / f"{NAME}.json").read_text())


@pytest.fixture
def artifact(tmp_path):
    """A copy of the artifact beside a copy of its manifest."""
    for name in (NAME, f"{NAME}.json"):
        shutil.copy(FOLDER / name, tmp_path)
    return tmp_path / NAME


def test_the_fixture_has_schema_1():
    assert DOCUMENT["schema"] == 1
    assert DOCUMENT["recipe"]["factors"] == "learned"
    assert DOCUMENT["recipe"]["rounding"] == "cancelling"


def test_it_is_read_in_the_current_names(artifact):
    manifest = read_manifest(artifact)
    assert manifest.schema_version == 2
    assert manifest.recipe == QuantRecipe(equalization="learned", rounding="gptq")
    assert manifest.encodings_sha256 == DOCUMENT["encodings_sha256"]
    assert manifest.calibration.count == DOCUMENT["calibration"]["count"] == 96
    found = manifest.parity.against_float(NAME)
    assert found["top1_agreement"] == 0.90625
    assert "sqnr_db" not in found  # it counted biases as signal


@pytest.mark.ci
def test_its_network_is_not_taken_for_that_of_today(artifact):
    """Since 0.2.0 scales are tie-free, so the same images and weights give other integers."""
    with pytest.raises(ArtifactError, match="could not be rebuilt") as caught:
        check_parity([artifact])
    assert "with the versions that made it (mobiledeploy 0.1.0, torch" in caught.value.remedy
    assert "export the artifact again" in caught.value.remedy


@pytest.mark.ci
def test_reproduce_says_what_differs(artifact):
    found = reproduce(artifact)
    assert not found.same
    assert any("mobiledeploy" in reason for reason in found.reasons), found.reasons


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"factors": "given"}, {"equalization": "none"}),
        ({"factors": "even"}, {"equalization": "cross-layer"}),
        ({"factors": "learned"}, {"equalization": "learned"}),
        ({}, {"equalization": "cross-layer"}),  # the oldest manifests have no such field
        ({"factors": "even", "rounding": "nearest"}, {"rounding": "nearest"}),
        ({"factors": "even", "rounding": "cancelling"}, {"rounding": "gptq"}),
        ({"factors": "even", "rounding": "learned"}, {"rounding": "learned"}),
    ],
)
def test_old_names_are_translated(tmp_path, recipe, expected):
    path = tmp_path / "a.onnx.json"
    path.write_text(json.dumps(DOCUMENT | {"recipe": recipe}))
    found = parse_manifest(path).recipe
    assert {name: getattr(found, name) for name in expected} == expected
