"""The documents of `doctor --json` and `device check --json` match their schemas."""

import json

import jsonschema
import pytest

from mobiledeploy.cli.check_documents import DeviceDocument, DoctorDocument
from mobiledeploy.doctor import Check
from mobiledeploy.utils.json_model import schema_text

CHECK = Check(name="adb", state="missing", found="not on the PATH", remedy="Install it.")
DOCUMENTS = {
    "doctor": DoctorDocument(healthy=True, checks=(CHECK,)),
    "device": DeviceDocument(uri="ssh://pi", able=False, checks=(CHECK,)),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_json_schema_is_current_and_describes_the_document(name, repository, request):
    document = DOCUMENTS[name]
    path = repository / "mobiledeploy" / "cli" / f"{name}.schema.json"
    if request.config.getoption("--regen"):
        path.write_text(schema_text(type(document)))
    assert path.read_text() == schema_text(type(document))
    content = document.model_dump(mode="json")
    jsonschema.validate(content, json.loads(path.read_text()))
    assert (content["schema"], content["kind"]) == (1, f"mobiledeploy.{name}")
    assert content["checks"] == [
        {
            "name": "adb",
            "state": "missing",
            "found": "not on the PATH",
            "remedy": "Install it.",
            "required": False,
        }
    ]
