"""The JSON documents of `diff` and `reproduce`, and their schemas."""

import json
from pathlib import Path

import jsonschema
import pytest
from differences import compared, difference, outputs

from mobiledeploy.diff import json_report
from mobiledeploy.diff.json_report import (
    DifferenceDocument,
    ReproductionDocument,
    difference_document,
    reproduction_document,
)
from mobiledeploy.diff.text import headline
from mobiledeploy.diff.types import Reproduction
from mobiledeploy.utils.json_model import schema_text

FOLDER = Path(json_report.__file__).parent
SCHEMAS = {"diff": DifferenceDocument, "reproduce": ReproductionDocument}
EXACT = compared(float("inf"), 1.0)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_generated_from_the_models(name, request):
    path, text = FOLDER / f"{name}.schema.json", schema_text(SCHEMAS[name])
    if request.config.getoption("--regen"):
        path.write_text(text)
    assert path.read_text() == text, "pytest --regen writes the schema again"


def require_valid(document, name):
    json.dumps(document, allow_nan=False)
    schema = json.loads((FOLDER / f"{name}.schema.json").read_text())
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"schema": 1}, schema)


def test_a_difference_is_one_document():
    found = difference(a_at_export=EXACT, outputs=outputs(b_against_float=EXACT))
    document = difference_document(found)
    require_valid(document, "diff")
    assert list(document)[:3] == ["schema", "kind", "headline"]
    assert (document["schema"], document["kind"]) == (2, "mobiledeploy.diff")
    assert document["same"] is False
    assert document["headline"] == list(headline(found))
    assert document["files"]["formats"] == ["onnx", "onnx"]
    assert document["a_at_export"]["sqnr_db"] is None
    assert document["outputs"]["b_against_float"]["sqnr_db"] is None
    (moved,) = document["encodings"]["moved"]
    assert (moved["scale_ratio"], moved["distance"]) == (2.0, 1.0)
    assert moved["a"] == {"scale": 0.5, "zero_point": -128}


def test_a_reproduction_is_one_document():
    done = Reproduction(
        manifest="m",
        expected_sha256="abc",
        found_sha256=None,
        reasons=("why",),
        difference=difference(),
    )
    document = reproduction_document(done)
    require_valid(document, "reproduce")
    assert (document["schema"], document["kind"]) == (2, "mobiledeploy.reproduce")
    assert (document["same"], document["found_sha256"]) == (False, None)
    assert document["reasons"] == ["why"]
    assert document["difference"]["b_at_export"] is None
    same = Reproduction(manifest="m", expected_sha256="abc", found_sha256="abc")
    assert reproduction_document(same)["same"] is True
