"""The points of a sweep: every combination of models, widths, resolutions, presets and inputs.

Input: lists from the command line, or a YAML file with the same names. Output: `Point`s. A point is
identified by everything that its result depends on, file contents included, so that results can be
kept and found again.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mobiledeploy.errors import LoadError, UsageError
from mobiledeploy.models.code_spec import is_code
from mobiledeploy.models.spec import family_named
from mobiledeploy.network import INPUT_FORMATS
from mobiledeploy.utils.files import reason_of, require_regular, sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

AXES = ("model", "width", "resolution", "ptq", "weights", "input")
_DEFAULT_INPUT = "float"
_GRID_EXAMPLE = "For example: model: [v2, v3-small] and resolution: [128, 160]."
_PRECISIONS = ("fast", "balanced", "best", "fp32")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One network to export and measure.

    Attributes:
        model: The family, as `mobiledeploy export` takes it.
        width: The width multiplier; None for that of the checkpoint, or 1.
        resolution: The side of the input; None for the family's own.
        ptq: A preset of int8 quantization, or "fp32" for a float export.
        weights: "imagenet", "random", or the path of a checkpoint; empty for the default.
        input: What the app writes into the input, a name of `network.INPUT_FORMATS`.
    """

    model: str
    width: float | None = None
    resolution: str | None = None
    ptq: str = "balanced"
    weights: str = ""
    input: str = _DEFAULT_INPUT

    @property
    def title(self) -> str:
        """Return the point in words, for example "v2, width 0.5, 160 pixels, fast"."""
        parts = [self.model]
        parts += [] if self.width is None else [f"width {self.width:g}"]
        parts += [] if self.resolution is None else [f"{self.resolution} pixels"]
        parts += [self.ptq]
        parts += [Path(self.weights).name] if self.weights else []
        parts += [] if self.input == _DEFAULT_INPUT else [self.input]
        return ", ".join(parts)

    @property
    def sides(self) -> int | tuple[int, int]:
        """Return the resolution as a number, or as height and width."""
        height, _, width = str(self.resolution).lower().partition("x")
        return (int(height), int(width)) if width else int(height)

    def export_arguments(self) -> list[str]:
        """Return the arguments of `mobiledeploy export` for this point."""
        arguments = [self.model]
        arguments += [] if self.width is None else ["--width", f"{self.width:g}"]
        arguments += [] if self.resolution is None else ["--resolution", self.resolution]
        arguments += ["--weights", self.weights] if self.weights else []
        arguments += [] if self.input == _DEFAULT_INPUT else ["--input", self.input]
        return arguments + ([] if self.ptq == "fp32" else ["--int8", "--ptq", self.ptq])

    def checkpoint_files(self) -> list[Path]:
        """Return the checkpoint and its `config.json`, which both decide what is loaded."""
        weights = Path(self.weights)
        if not self.weights or not weights.is_file():
            return []
        config = weights.with_name("config.json")
        return [weights, *([config] if config.is_file() else [])]

    def identity(self, context: Mapping[str, object]) -> str:
        """Return the sha256 of everything that the result depends on.

        Args:
            context: What all points share: formats, digests of the images, versions.
        """
        digests = [(path.name, sha256_of(path)) for path in self.checkpoint_files()]
        document = asdict(self) | {"weights": digests or self.weights, "context": dict(context)}
        if self.input == _DEFAULT_INPUT:  # results without this axis are found again
            del document["input"]
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def grid(axes: Mapping[str, Sequence[Any]]) -> list[Point]:
    """Return all combinations of the values of the axes, each once.

    Args:
        axes: Values by the names of `AXES`; an axis without values is left at its default.

    Raises:
        UsageError: there is no such axis, no model, or a value is invalid.
    """
    unknown = sorted(set(axes) - set(AXES))
    if unknown:
        raise UsageError(
            f"A sweep has no axis {unknown[0]!r}.", remedy=f"Choose from {', '.join(AXES)}."
        )
    if not axes.get("model"):
        raise UsageError("A sweep needs a model.", remedy="Pass --model, for example --model v2.")
    given = {name: values for name, values in axes.items() if values}
    combinations = itertools.product(*given.values())
    points = [_point(dict(zip(given, values, strict=True))) for values in combinations]
    return list(dict.fromkeys(points))


def read_grid(path: Path) -> list[Point]:
    """Read the points of a YAML file: lists by axis, or a list of such mappings.

    Raises:
        LoadError: the file cannot be read.
        UsageError: it is not of this form.
    """
    require_regular(path, LoadError)
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise LoadError(
            f"Could not read {path}: {reason_of(error)}.", remedy=_GRID_EXAMPLE
        ) from error
    blocks = document if isinstance(document, list) else [document]
    points = [point for block in blocks for point in grid(_axes(path, block))]
    return list(dict.fromkeys(points))


def _axes(path: Path, block: object) -> dict[str, list[Any]]:
    if not isinstance(block, dict) or not all(isinstance(name, str) for name in block):
        raise UsageError(
            f"{path} holds {type(block).__name__}, expected lists by axis.",
            remedy=_GRID_EXAMPLE,
        )
    return {
        name: list(values) if isinstance(values, list) else [values]
        for name, values in block.items()
    }


def _point(values: Mapping[str, Any]) -> Point:
    """Return a point with converted values.

    Raises:
        UsageError: a value is invalid.
    """
    fields: dict[str, Any] = {name: str(value) for name, value in values.items()}
    if not is_code(fields["model"]):
        family_named(fields["model"])  # refuses what is no family
    if "width" in fields:
        try:
            fields["width"] = float(fields["width"])
        except ValueError as error:
            raise UsageError(f"--width is {fields['width']!r}; expected a number.") from error
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)?", fields.get("resolution", "1").lower()):
        raise UsageError(
            f"--resolution is {fields['resolution']!r}; expected pixels, or height and width.",
            remedy="For example: --resolution 128,160 or --resolution 160x120",
        )
    if fields.get("ptq", "fast") not in _PRECISIONS:
        raise UsageError(f"--ptq is {fields['ptq']!r}; expected one of {', '.join(_PRECISIONS)}.")
    if fields.get("input", _DEFAULT_INPUT) not in INPUT_FORMATS:
        raise UsageError(
            f"--input is {fields['input']!r}; expected one of {', '.join(INPUT_FORMATS)}."
        )
    return Point(**fields)


def split(values: Sequence[str] | None) -> list[str]:
    """Return the values of an option that may be repeated and may hold several, "a,b"."""
    return [part.strip() for value in values or () for part in value.split(",") if part.strip()]


def digest_of_images(path: Path | None) -> str:
    """Return a digest of a set of images that changes with its files' names and sizes.

    An `.npz` is digested by its content.
    """
    if path is None:
        return ""
    if path.is_file():
        return sha256_of(path)
    digest = hashlib.sha256()
    for name, size in _files(path):
        digest.update(f"{name} {size}\n".encode())
    return digest.hexdigest()


def _files(folder: Path) -> Iterator[tuple[str, int]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path.stat().st_size
