"""Tests of the base of JSON documents: strict reading, plain error messages, and schemas."""

import json
import math
from dataclasses import dataclass
from typing import Literal

import pytest
from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError

from mobiledeploy.utils.json_model import JsonFloat, JsonModel, explain_invalid, schema_text


class Part(JsonModel):
    threads: PositiveInt
    times_ms: tuple[PositiveFloat, ...]


class Document(JsonModel):
    kind: Literal["a"]
    parts: tuple[Part, ...]
    sqnr_db: JsonFloat = 1.0


def read(**changes: object) -> Document:
    whole = {"kind": "a", "parts": [{"threads": 1, "times_ms": [1, 2.5]}], "sqnr_db": 3.0}
    return Document.model_validate_json(json.dumps(whole | changes))


def test_unknown_keys_are_ignored():
    assert read(surprise=1) == read()


@pytest.mark.parametrize(
    ("value", "text"), [(math.inf, "null"), (-math.inf, '"-Infinity"'), (math.nan, '"NaN"')]
)
def test_special_floats_survive_a_round_trip(value, text):
    document = Document(kind="a", parts=(), sqnr_db=value)
    assert f'"sqnr_db":{text}' in document.model_dump_json()
    again = Document.model_validate_json(document.model_dump_json())
    assert repr(again.sqnr_db) == repr(value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "b"}, "`kind` is \"b\", expected 'a'"),
        ({"parts": {}}, "`parts` is {}, expected a list"),
        ({"parts": [None]}, "`parts.0` is null, expected an object"),
        ({"parts": [{"threads": 1}]}, "`parts.0.times_ms` is missing"),
        (
            {"parts": [{"threads": "1", "times_ms": []}]},
            '`parts.0.threads` is "1", expected a whole number',
        ),
        (
            {"parts": [{"threads": 0, "times_ms": []}]},
            "`parts.0.threads` is 0, expected a number above 0",
        ),
        ({"sqnr_db": "high"}, '`sqnr_db` is "high", expected a number'),
        ({"sqnr_db": 60 * "x"}, f'`sqnr_db` is "{39 * "x"}..., expected a number'),
    ],
)
def test_problems_are_explained_in_plain_words(changes, message):
    with pytest.raises(ValidationError) as caught:
        read(**changes)
    assert explain_invalid(caught.value) == message


def test_text_that_is_not_json_is_explained():
    with pytest.raises(ValidationError) as caught:
        Document.model_validate_json("[")
    assert explain_invalid(caught.value).startswith("it is not JSON (EOF")


def test_the_schema_requires_every_field_that_is_written():
    schema = json.loads(schema_text(Document))
    assert schema["required"] == ["kind", "parts", "sqnr_db"]


class Described(JsonModel):
    """A thing
    of two lines.

    Attributes:
        size: How large it is,
            in bytes.
        colour: What it looks like.
    """

    size: int
    colour: str


def test_attributes_in_a_docstring_describe_the_properties():
    schema = json.loads(schema_text(Described))
    assert schema["description"] == "A thing of two lines."
    described = {name: field["description"] for name, field in schema["properties"].items()}
    assert described == {"size": "How large it is, in bytes.", "colour": "What it looks like."}


@dataclass
class Plain:
    size: int | str


class Strict(JsonModel):
    model_config = ConfigDict(extra="forbid")

    plain: Plain


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"plain": []}, "`plain` is [], expected an object"),
        ({"plain": {"size": None}}, "`plain.size` is null, expected a whole number"),
        ({"plain": {"size": 1, "colour": 2}}, "`plain.colour` is not a known field"),
        ({"plain": {"size": 1}, "colour": 2}, "`colour` is not a known field"),
        (None, "the document is null, expected an object"),
    ],
)
def test_problems_of_dataclasses_and_strict_documents_are_explained(document, message):
    with pytest.raises(ValidationError) as caught:
        Strict.model_validate_json(json.dumps(document))
    assert explain_invalid(caught.value) == message


def test_a_pattern_that_pydantic_quotes_is_shown_as_it_is():
    class Named(JsonModel):
        name: str = Field(pattern="^[0-9a-f]{64}$")

    with pytest.raises(ValidationError) as caught:
        Named(name="x")
    assert "[0-9a-f]{64}" in explain_invalid(caught.value)
