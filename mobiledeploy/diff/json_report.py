"""The JSON documents of `diff` and `reproduce`, described by the `*.schema.json` files here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from mobiledeploy.diff.text import headline
from mobiledeploy.diff.types import Difference, Reproduction
from mobiledeploy.utils.json_model import JsonModel


class _DifferenceHeader(JsonModel):
    schema_version: Literal[2] = Field(default=2, alias="schema")
    kind: Literal["mobiledeploy.diff"] = "mobiledeploy.diff"
    headline: tuple[str, ...] = Field(description="The answer in a few sentences.")


class DifferenceDocument(Difference, _DifferenceHeader):
    """What `mobiledeploy diff --json` prints."""


class _ReproductionHeader(JsonModel):
    schema_version: Literal[2] = Field(default=2, alias="schema")
    kind: Literal["mobiledeploy.reproduce"] = "mobiledeploy.reproduce"


class ReproductionDocument(Reproduction, _ReproductionHeader):
    """What `mobiledeploy reproduce --json` prints."""


def difference_document(difference: Difference) -> dict[str, Any]:
    """Return the JSON document of a comparison."""
    document = DifferenceDocument(**dict(difference), headline=tuple(headline(difference)))
    return document.model_dump(mode="json", by_alias=True)


def reproduction_document(reproduction: Reproduction) -> dict[str, Any]:
    """Return the JSON document of a reproduction."""
    document = ReproductionDocument(**dict(reproduction))
    return document.model_dump(mode="json", by_alias=True)
