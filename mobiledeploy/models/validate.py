"""Validate a model specification. Every error names the value found and the values allowed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args, get_type_hints

from mobiledeploy.errors import UsageError
from mobiledeploy.models import mobilenet_v1, mobilenet_v2, mobilenet_v3, mobilenet_v4
from mobiledeploy.models.head import head_outputs
from mobiledeploy.models.spec import FAMILIES, ArchitectureOptions, Family, ModelSpec
from mobiledeploy.network import INPUT_FORMATS, InputName, Task
from mobiledeploy.utils.finite import is_finite
from mobiledeploy.utils.visible_text import short_repr

MIN_RESOLUTION = 32  # five halvings leave one pixel in the last stage
MAX_RESOLUTION = 4096
MAX_WIDTH = 10.0
MAX_OUTPUTS = 1_000_000
MAX_IN_CHANNELS = 4096
MAX_CHANNELS = 65_536  # of one layer, before the width multiplier
MAX_LAYERS = 1000  # rows of a table, with their repetitions
_MIN_CLASSES = 2

_COMMON = frozenset({"rows", "head", "stem_width", "stem_stride", "norm_eps", "padding"})
_V3 = _COMMON | {
    *("head_width", "hidden_width", "width_rule", "dilated", "reduced_tail", "se_gate"),
}
_V4 = _COMMON | {"head_width"}
_OPTIONS: dict[Family, frozenset[str]] = {
    "v1": _COMMON | {"activation", "kernels_per_layer", "norm"},
    "v2": _COMMON | {"head_width", "round_nearest", "norm"},
    "v3-large": _V3,
    "v3-small": _V3,
    "v4-conv-small": _V4,
    "v4-conv-medium": _V4,
    "v4-conv-large": _V4,
}

COLUMNS: dict[Family, tuple[str, ...]] = {
    "v1": mobilenet_v1.Row._fields,
    "v2": mobilenet_v2.Row._fields,
    "v3-large": mobilenet_v3.Row._fields,
    "v3-small": mobilenet_v3.Row._fields,
    "v4-conv-small": mobilenet_v4.Row._fields,
    "v4-conv-medium": mobilenet_v4.Row._fields,
    "v4-conv-large": mobilenet_v4.Row._fields,
}


def validate(spec: ModelSpec) -> None:
    """Check that `spec` describes a network that can be built.

    Raises:
        UsageError: A field is invalid; the text names the first one and its allowed values.
    """
    if spec.family not in FAMILIES:
        raise UsageError(
            f"There is no family {spec.family!r}.", remedy=f"Choose one of {', '.join(FAMILIES)}."
        )
    _require(
        _is_number(spec.width) and 0 < spec.width <= MAX_WIDTH,
        "width",
        spec.width,
        f"a number above 0, at most {MAX_WIDTH:g}",
    )
    validate_resolution(spec.resolution)
    _require_integer("num_classes", spec.num_classes, at_least=0, at_most=MAX_OUTPUTS)
    _require_integer("in_channels", spec.in_channels, at_least=1, at_most=MAX_IN_CHANNELS)
    validate_input(spec.input, spec.in_channels)
    _require(
        isinstance(spec.weights, str),
        "weights",
        spec.weights,
        "imagenet, random, or the path of a checkpoint",
    )
    _require_integer("seed", spec.seed, at_least=0, at_most=2**63 - 1)
    _require(
        _is_number(spec.dropout) and 0 <= spec.dropout < 1,
        "dropout",
        spec.dropout,
        "a probability from 0 to below 1",
    )
    tasks = get_args(Task)
    _require(spec.task in (None, *tasks), "task", spec.task, f"one of {', '.join(tasks)}")
    if spec.task == "classes" and spec.num_classes < _MIN_CLASSES:
        raise UsageError(
            f"task is 'classes'; the network has {spec.num_classes} outputs, and the largest of"
            f" fewer than {_MIN_CLASSES} decides nothing.",
            remedy="Choose regression or embedding.",
        )
    _validate_options(spec.family, spec.architecture)
    if spec.architecture.head is not None:
        outputs = head_outputs(spec.architecture.head)
        _require(
            spec.num_classes == outputs,
            "num_classes",
            spec.num_classes,
            f"{outputs}, as the head {spec.architecture.head!r} has",
        )


def validate_input(input_name: InputName, channels: int) -> None:
    """Check that an input format exists and has the channels that the network was trained with.

    Raises:
        UsageError: It does not.
    """
    _require(input_name in INPUT_FORMATS, "input", input_name, f"one of {', '.join(INPUT_FORMATS)}")
    colours = {name: len(each.order.replace("A", "")) for name, each in INPUT_FORMATS.items()}
    if colours[input_name] not in (0, channels):
        fitting = [name for name, count in colours.items() if count in (0, channels)]
        raise UsageError(
            f"The input format {input_name} does not fit a network with {channels} input"
            f" channel{'s' * (channels != 1)}.",
            remedy=f"Choose {' or '.join(fitting)}.",
        )


def validate_resolution(resolution: object) -> None:
    """Check that an input has a possible size.

    Raises:
        UsageError: It is no whole number or pair of them, or out of range.
    """
    sides = resolution if isinstance(resolution, tuple) and len(resolution) == 2 else [resolution]
    for side in sides:
        _require_integer("resolution", side, at_least=MIN_RESOLUTION, at_most=MAX_RESOLUTION)


def _validate_options(family: Family, options: ArchitectureOptions) -> None:
    """Check that the family has the changed options, and that their values are allowed."""
    foreign = sorted(set(options.changed) - _OPTIONS[family])
    if foreign:
        raise UsageError(
            f"{family} has no architecture option {', '.join(foreign)}.",
            remedy=f"It has {', '.join(sorted(_OPTIONS[family]))}.",
        )
    for name in ("activation", "width_rule", "se_gate", "norm", "padding"):
        choices = get_args(get_type_hints(ArchitectureOptions)[name])
        value = getattr(options, name)
        _require(value in choices, name, value, "one of " + ", ".join(choices))
    for name in ("dilated", "reduced_tail"):
        value = getattr(options, name)
        _require(isinstance(value, bool), name, value, "true or false")
    _require_integer(
        "kernels_per_layer", options.kernels_per_layer, at_least=1, at_most=MAX_CHANNELS
    )
    _require_integer("round_nearest", options.round_nearest, at_least=1, at_most=MAX_CHANNELS)
    _require_integer("stem_stride", options.stem_stride, at_least=1, at_most=2)
    for name in ("stem_width", "head_width", "hidden_width"):
        value = getattr(options, name)
        if value is not None:
            _require_integer(name, value, at_least=1, at_most=MAX_CHANNELS)
    _require(options.head is None or isinstance(options.head, str), "head", options.head, "text")
    eps = options.norm_eps
    _require(eps is None or (_is_number(eps) and eps > 0), "norm_eps", eps, "a number above 0")
    _require(eps is None or options.norm == "batch", "norm_eps", eps, "none without BatchNorm")
    if options.rows is not None:
        _validate_rows(options.rows, COLUMNS[family])


def _validate_rows(rows: object, columns: Sequence[str]) -> None:
    """Check a custom row table; errors name the row (from 1) and the column."""
    expected = f"a list of rows, each {', '.join(columns)}"
    if not isinstance(rows, tuple | list) or not rows:
        raise _refusal("rows", rows, expected)
    for number, row in enumerate(rows, start=1):
        _require(
            isinstance(row, tuple | list) and len(row) == len(columns),
            f"rows, row {number}",
            row,
            f"{len(columns)} columns: {', '.join(columns)}",
        )
        for column, value in zip(columns, row, strict=True):
            _validate_cell(f"rows, row {number}, column {column}", column, value)
        if "block" in columns:
            _validate_v4_row(f"rows, row {number}", mobilenet_v4.Row._make(row))
    repeats = columns.index("n") if "n" in columns else None
    layers = len(rows) if repeats is None else sum(row[repeats] for row in rows)
    if layers > MAX_LAYERS:
        raise UsageError(f"rows describe {layers} blocks; expected at most {MAX_LAYERS}.")


def _validate_cell(where: str, column: str, value: object) -> None:
    """Check one cell of a row table by its column's name."""
    match column:
        case "SE":
            _require(isinstance(value, bool), where, value, "true or false")
        case "NL":
            _require(value in ("RE", "HS"), where, value, "RE or HS")
        case "block":
            _require(value in ("Conv", "FusedIB", "UIB"), where, value, "Conv, FusedIB or UIB")
        case "k1" | "k2":
            _require(value in (0, 1, 3, 5, 7), where, value, "0, 1, 3, 5 or 7")
        case "k":
            _require(value in (3, 5, 7), where, value, "3, 5 or 7")
        case "s":
            _require(value in (1, 2) and value is not True, where, value, "1 or 2")
        case "exp":
            _require_integer(where, value, at_least=0, at_most=MAX_CHANNELS)
        case "n":
            _require_integer(where, value, at_least=1, at_most=MAX_LAYERS)
        case _:
            _require_integer(where, value, at_least=1, at_most=MAX_CHANNELS)


def _validate_v4_row(where: str, row: mobilenet_v4.Row) -> None:
    """Check that the columns of a row go together."""
    if row.block == "UIB":
        strided = row.s == 1 or row.k1 or row.k2
        _require(bool(strided), f"{where}, column s", row.s, "1 where k1 and k2 are 0")
    else:
        _require(row.k1 > 0, f"{where}, column k1", row.k1, f"1, 3, 5 or 7 in a {row.block}")
        _require(row.k2 == 0, f"{where}, column k2", row.k2, f"0 in a {row.block}")
    if row.block == "Conv":
        _require(row.exp == 0, f"{where}, column exp", row.exp, "0 in a Conv")
    else:
        _require(row.exp > 0, f"{where}, column exp", row.exp, f"at least 1 in a {row.block}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value)


def _require_integer(
    name: str, value: object, *, at_least: int, at_most: int | None = None
) -> None:
    found = isinstance(value, int) and not isinstance(value, bool) and value >= at_least
    expected = f"a whole number, at least {at_least}"
    if at_most is not None:
        found = found and isinstance(value, int) and value <= at_most
        expected += f" and at most {at_most}"
    _require(found, name, value, expected)


def _require(condition: bool, name: str, found: object, expected: str) -> None:
    if not condition:
        raise _refusal(name, found, expected)


def _refusal(name: str, found: object, expected: str) -> UsageError:
    return UsageError(f"{name} is {short_repr(found)}; expected {expected}.")
