"""docs/reference lists every JSON document, every schema, and the keys of the manifest."""

import json
import re

from markdown_blocks import DOCS, ROOT

PAGE = (DOCS / "reference" / "json-documents.md").read_text(encoding="utf-8")


def test_every_kind_of_document_is_listed():
    sources = "".join(path.read_text() for path in (ROOT / "mobiledeploy").rglob("*.py"))
    kinds = set(re.findall(r'kind"?: (?:Literal\[)?"(mobiledeploy\.[a-z.]+)"', sources))
    kinds |= set(
        re.findall(r'^[A-Z]+ = "(mobiledeploy\.(?:parity|bench[a-z.]*))"', sources, re.MULTILINE)
    )
    assert len(kinds) >= 9
    assert {kind for kind in kinds if f"`{kind}`" not in PAGE} == set()


def test_every_schema_is_listed():
    schemas = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "mobiledeploy").rglob("*.schema.json")
    }
    assert schemas
    assert {schema for schema in schemas if f"`{schema}`" not in PAGE} == set()


def test_every_key_of_the_manifest_is_listed():
    page = (DOCS / "reference" / "manifest.md").read_text(encoding="utf-8")
    schema = json.loads((ROOT / "mobiledeploy" / "artifact" / "manifest.schema.json").read_text())
    assert {key for key in schema["properties"] if f"| `{key}` |" not in page} == set()
