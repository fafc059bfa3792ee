"""Compare what two artifacts were made from, field by field.

In: two manifests. Out: an `InputComparison` for each input, in the order of the pipeline.
Invariant: files and images are compared by sha256; their paths do not matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.diff.types import Change, InputComparison
from mobiledeploy.stages import RECIPES, describe_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.diff.types import InputName

    Fields = Mapping[str, object]


def compare_inputs(a: Manifest, b: Manifest) -> tuple[InputComparison, ...]:
    """Return a comparison of every input, including those that are the same."""
    return (
        _compare("network", a, b, _network, lambda m: f"{m.info.name}, {m.precision}"),
        _compare("weights", a, b, _weights, _describe_weights),
        _compare("preprocessing", a, b, _preprocessing, _describe_preprocessing),
        _compare_labels(a, b),
        _compare("calibration", a, b, _calibration, _describe_calibration),
        _compare("recipe", a, b, _recipe, _describe_recipe),
        _compare("tools", a, b, lambda m: m.tool_versions, _describe_tools),
    )


def _compare(
    name: InputName,
    a: Manifest,
    b: Manifest,
    fields: Callable[[Manifest], Fields],
    describe: Callable[[Manifest], str],
) -> InputComparison:
    return InputComparison(
        name=name, a=describe(a), b=describe(b), changes=_changes(fields(a), fields(b))
    )


def _changes(a: Fields, b: Fields) -> tuple[Change, ...]:
    return tuple(
        Change(field=name, a=_text(a.get(name, "")), b=_text(b.get(name, "")))
        for name in dict.fromkeys((*a, *b))
        if a.get(name, "") != b.get(name, "")
    )


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    if isinstance(value, Mapping):  # an output: what it does not have is left out
        given = {name: _text(item) for name, item in value.items() if item not in ((), [], "")}
        return " ".join(f"{name}={text}" for name, text in given.items())
    return "none" if value is None else str(value)


def _network(manifest: Manifest) -> Fields:
    spec = asdict(manifest.spec)
    options = spec.pop("architecture", {})  # a network from code has none
    del spec["weights"], spec["seed"]  # part of the weights; random ones have a seed
    architecture = {f"architecture.{name}": value for name, value in options.items()}
    return {"precision": manifest.precision, **spec, **architecture}


def _weights(manifest: Manifest) -> Fields:
    weights = manifest.weights
    seed = {"origin": weights.origin} if weights.source == "random" else {}
    return {
        "source": weights.source,
        "sha256": weights.sha256,
        "dialect": weights.dialect,
        **seed,
    }


def _describe_weights(manifest: Manifest) -> str:
    weights = manifest.weights
    if weights.source == "random":
        return f"random, {weights.origin}"
    return f"{weights.origin.rsplit('/', 1)[-1]}, {_short(weights.sha256)}"


def _preprocessing(manifest: Manifest) -> Fields:
    return asdict(manifest.preprocessing)


def _describe_preprocessing(manifest: Manifest) -> str:
    image = manifest.info.input
    resized, crop = image.resizing.values()
    sizes = (_text(resized), _text(crop))
    return f"{sizes[0]} to {sizes[1]} px, {image.preprocessing.interpolation}"


def _compare_labels(a: Manifest, b: Manifest) -> InputComparison:
    changes: list[Change] = []
    if len(a.labels) != len(b.labels):
        changes.append(Change(field="count", a=str(len(a.labels)), b=str(len(b.labels))))
    else:
        pairs = enumerate(zip(a.labels, b.labels, strict=True))
        changes += [Change(field=f"class {i}", a=x, b=y) for i, (x, y) in pairs if x != y]
    return InputComparison(
        name="labels", a=_describe_labels(a), b=_describe_labels(b), changes=tuple(changes)
    )


def _describe_labels(manifest: Manifest) -> str:
    return f"{len(manifest.labels)} names" if manifest.labels else "none"


def _calibration(manifest: Manifest) -> Fields:
    calibration = manifest.calibration
    if calibration is None:
        return {}
    return {"count": calibration.count, "sha256": calibration.sha256}


def _describe_calibration(manifest: Manifest) -> str:
    calibration = manifest.calibration
    if calibration is None:
        return "none"
    images = describe_images(calibration.count, Path(calibration.source).name)
    return f"{images}, {_short(calibration.sha256)}"


def _recipe(manifest: Manifest) -> Fields:
    return asdict(manifest.recipe) if manifest.recipe else {}


def _describe_recipe(manifest: Manifest) -> str:
    recipe = manifest.recipe
    if recipe is None:
        return "none"
    preset = next((name for name, known in RECIPES.items() if known == recipe), "custom")
    return (
        f"{preset} (equalization {recipe.equalization}, ranges {recipe.range_rule}, rounding"
        f" {recipe.rounding})"
    )


def _describe_tools(manifest: Manifest) -> str:
    versions = manifest.tool_versions
    return f"mobiledeploy {versions.get('mobiledeploy', '?')}, torch {versions.get('torch', '?')}"


def _short(sha256: str | None) -> str:
    return f"{sha256[:12]}..." if sha256 else "no sha256"
