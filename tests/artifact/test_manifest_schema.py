"""The JSON schema of manifests is current, and real manifests are valid by it."""

import json
from pathlib import Path

import jsonschema
import networks
import pytest

from mobiledeploy.artifact import manifest_schema
from mobiledeploy.artifact.manifest import write_manifest
from mobiledeploy.artifact.manifest_schema import ManifestDocument
from mobiledeploy.utils.json_model import schema_text

SCHEMA = Path(manifest_schema.__file__).with_name("manifest.schema.json")


def test_the_schema_is_generated_from_the_model(request):
    text = schema_text(ManifestDocument)
    if request.config.getoption("--regen"):
        SCHEMA.write_text(text)
    assert SCHEMA.read_text() == text, "pytest --regen writes the schema again"


@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_manifests_are_valid_by_the_schema(exported_to, tmp_path, precision):
    made = exported_to("onnx", "v2", precision=precision)
    make = networks.quantized if precision == "int8" else networks.folded
    path = write_manifest(made, make("v2", short=True), {"passed": True}, home=tmp_path)
    document = json.loads(path.read_text())
    path.unlink()
    jsonschema.validate(document, json.loads(SCHEMA.read_text()))
    assert "int8_coverage" in document
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document | {"precision": "int4"}, json.loads(SCHEMA.read_text()))
