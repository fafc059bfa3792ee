"""Read a model specification from a file: `ModelSpec`'s fields as YAML (or JSON).

family: v2
width: 1.0
num_classes: 10
architecture:
  head: dropout,linear:256,relu,linear:10
  rows:                     # t, c, n, s: the paper's column order...
    - [1, 16, 1, 1]
    - {t: 6, c: 24, n: 2, s: 2}     # ...or by name
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mobiledeploy.errors import LoadError, UsageError
from mobiledeploy.models.head import head_outputs
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec, family_named
from mobiledeploy.models.v1_table import with_rows
from mobiledeploy.models.validate import COLUMNS, validate
from mobiledeploy.utils.files import require_regular


class _Loader(yaml.SafeLoader):
    """A YAML loader that accepts numbers like 1e-5, as YAML 1.2 does; PyYAML requires 1.0e-5."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def load_config(path: Path) -> ModelSpec:
    """Read and check a specification. Fields that the file omits have `ModelSpec`'s defaults.

    Raises:
        LoadError: The file cannot be read, or is not YAML.
        UsageError: The file does not describe a network.
    """
    return ModelSpec(**read_config(path))


def read_config(path: Path, model: str | None = None) -> dict[str, Any]:
    """Return the fields of `ModelSpec` that a file sets, including the family.

    Omitted fields are not returned: weights may decide them.

    Args:
        path: Path of the file.
        model: The family that was requested beside the file, if any.

    Raises:
        LoadError: The file cannot be read, or is not YAML.
        UsageError: The file does not describe a network, or describes one of another family.
    """
    document = _read(path)
    try:
        document = with_head(with_rows(document))
        spec = ModelSpec.from_document(_by_columns(document))
        validate(spec)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", remedy=error.remedy) from error
    if model is not None and family_named(model) != spec.family:
        raise UsageError(
            f"{path} describes a {spec.family}; requested was {model}.",
            remedy="Leave the model out, or pass the file of that model.",
        )
    return {name: getattr(spec, name) for name in document}


def with_head(fields: dict[str, Any]) -> dict[str, Any]:
    """Move a `head` beside the other fields into the architecture, and set its outputs.

    Raises:
        UsageError: `head` describes no head (see `mobiledeploy.models.head`).
    """
    fields = dict(fields)
    options = fields.get("architecture") or {}
    if isinstance(options, ArchitectureOptions):
        options = options.changed
    if not isinstance(options, dict):
        return fields  # `ModelSpec` raises the error
    head = fields.pop("head", None) or options.get("head")
    if not isinstance(head, str):
        return fields
    fields["architecture"] = {**options, "head": head}
    return {"num_classes": head_outputs(head), **fields}


def _read(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds."""
    require_regular(path, LoadError)
    try:
        text = path.read_text(encoding="utf-8")
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    except OSError as error:
        raise LoadError(
            f"Could not read the configuration {path}: {error.strerror}.",
            remedy="Pass the path of a YAML file; docs/how-to/own-architecture.md shows one.",
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LoadError(
            f"{path} is not YAML: {' '.join(str(error).split())}",
            remedy="Correct the file; docs/how-to/own-architecture.md shows a complete one.",
        ) from error
    if not isinstance(document, dict):
        raise UsageError(
            f"{path} holds {type(document).__name__}; expected a mapping of a model's fields.",
            remedy="Begin with `family: v2`; see docs/how-to/own-architecture.md.",
        )
    return document


def _by_columns(document: dict[str, Any]) -> dict[str, Any]:
    """Resolve the family's alias, and sort rows with named columns into column order."""
    family = document.get("family")
    if not isinstance(family, str):
        return document  # `ModelSpec` raises the error
    resolved = {**document, "family": family_named(family)}
    options = document.get("architecture")
    if not isinstance(options, Mapping) or not isinstance(options.get("rows"), list):
        return resolved
    columns = COLUMNS[family_named(family)]
    rows = [_ordered(row, columns, at) for at, row in enumerate(options["rows"], start=1)]
    return {**resolved, "architecture": {**options, "rows": rows}}


def _ordered(row: object, columns: tuple[str, ...], number: int) -> object:
    """Return a row with named columns as a list, and any other row unchanged."""
    if not isinstance(row, Mapping):
        return row
    if set(row) != set(columns):
        raise UsageError(
            f"rows, row {number} has the columns {', '.join(map(str, row))}; "
            f"expected {', '.join(columns)}."
        )
    return [row[column] for column in columns]
