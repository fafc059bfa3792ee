"""Pydantic models of the JSON documents that mobiledeploy writes and reads.

Importing this module imports pydantic, so the command line imports it inside its commands.
"""

from __future__ import annotations

import json
import re
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
)
from pydantic.json_schema import GenerateJsonSchema

from mobiledeploy.utils.json_numbers import decode_float, encode_floats

_SHOWN = 40  # characters of a wrong value
_DIALECT = GenerateJsonSchema.schema_dialect


class JsonModel(BaseModel):
    """A frozen JSON object. Values are not converted to other types; unknown keys are ignored."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        strict=True,
        serialize_by_alias=True,
        json_schema_serialization_defaults_required=True,
    )


def _decode(value: Any) -> Any:
    return decode_float(value) if value in (None, "NaN", "-Infinity") else value


JsonFloat = Annotated[
    float,
    BeforeValidator(_decode),
    PlainSerializer(encode_floats, return_type=float | Literal["NaN", "-Infinity"] | None),
]
"""A float that may be infinite or NaN, written as `json_numbers` says: null is +inf."""


class _SchemaWithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Return False: the titles would only repeat the names of the fields."""
        return False


def schema_text(*documents: type[BaseModel]) -> str:
    """Return the JSON schema of the documents that these models write, as the text of a file.

    With several models, a document has to match one of them.
    """
    union: Any = reduce(or_, documents)
    schema = TypeAdapter(union).json_schema(
        mode="serialization", schema_generator=_SchemaWithoutTitles
    )
    for part in (schema, *schema.get("$defs", {}).values()):
        _describe_properties(part)
    return json.dumps({"$schema": _DIALECT} | schema, indent=2) + "\n"


def _describe_properties(schema: dict[str, Any]) -> None:
    """Move the `Attributes:` of a docstring to the properties that they describe."""
    text, _, attributes = schema.get("description", "").partition("\n\nAttributes:\n")
    for name, description in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE):
        if name in schema.get("properties", {}):
            schema["properties"][name]["description"] = " ".join(description.split())
    if text:
        schema["description"] = " ".join(text.split())


def explain_invalid(error: ValidationError) -> str:
    """Return the first problem of a document in plain words.

    For example: `measurements.1.threads` is "two", expected a whole number
    """
    problem = error.errors(include_url=False)[0]
    names = [str(name) for name in problem["loc"] if name not in _UNION_MEMBERS]
    where = f"`{'.'.join(names)}`" if names else "the document"
    if problem["type"] == "missing":
        return f"{where} is missing"
    if problem["type"] in _UNKNOWN:
        return f"{where} is not a known field"
    if problem["type"] == "json_invalid":
        return f"it is not JSON ({problem['ctx']['error']})"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    shown = json.dumps(problem["input"], default=str)
    shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
    known = _EXPECTED.get(problem["type"])
    if known is None:  # pydantic's own text, in which braces mean nothing
        return f"{where} is {shown}, expected {problem['msg'].removeprefix('Input should be ')}"
    return f"{where} is {shown}, expected {known.format(**problem.get('ctx', {}))}"


_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
UNION_TAGS = ("<first>", "<second>")
"""Tags of the members of a union of two objects, by whether the second one was meant."""
_UNION_MEMBERS = ("int", "float", "bool", "str", *UNION_TAGS)  # pydantic adds what it tried
# pydantic's name of an error -> what was expected
_EXPECTED = {
    "bool_type": "true or false",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": "an object",
    "string_type": "text",
    "too_short": "a list with {min_length} or more entries",
    "tuple_type": "a list",
}
