"""What two artifacts were made from, field by field.

In: two manifests. Out: a `InputComparison` for each thing that went in, in the pipeline's order.
Invariant: files and images are what their sha256 says; where they lay makes no difference.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.diff.types import Change, InputComparison
from mobiledeploy.network import RECIPES, describe_images

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.diff.types import InputName

    Fields = Mapping[str, object]


def compare_inputs(a: Manifest, b: Manifest) -> tuple[InputComparison, ...]:
    """Return the parts of two artifacts, the same ones too."""
    return (
        _part("network", (a, b), _network, lambda m: f"{m.info.name}, {m.document['precision']}"),
        _part("weights", (a, b), _weights, _weights_in_words),
        _part("preprocessing", (a, b), _preprocessing, _preprocessing_in_words),
        _labels(a, b),
        _part("calibration", (a, b), _calibration, _calibration_in_words),
        _part("recipe", (a, b), _recipe, _recipe_in_words),
        _part("tools", (a, b), lambda m: m.document["tool_versions"], _tools_in_words),
    )


def _part(
    name: InputName, sides: tuple[Manifest, Manifest], fields: Any, words: Any
) -> InputComparison:
    a, b = sides
    return InputComparison(
        name=name, a=words(a), b=words(b), changes=_changes(fields(a), fields(b))
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
    return "none" if value is None else str(value)


def _network(manifest: Manifest) -> Fields:
    document = manifest.document
    spec = dict(document["spec"])
    options = spec.pop("architecture", None) or {}
    named = {f"architecture.{name}": value for name, value in options.items()}
    for name in ("weights", "seed"):  # weights are a part of their own; random ones name the seed
        spec.pop(name, None)
    return {"precision": document["precision"], **spec, **named}


def _weights(manifest: Manifest) -> Fields:
    described = manifest.document["weights"]
    seed = {"origin": described["origin"]} if described["source"] == "random" else {}
    return {name: described[name] for name in ("source", "sha256", "dialect")} | seed


def _weights_in_words(manifest: Manifest) -> str:
    described = manifest.document["weights"]
    if described["source"] == "random":
        return f"random, {described['origin']}"
    name = str(described["origin"]).rsplit("/", 1)[-1]
    return f"{name}, {short(described['sha256'])}"


def _preprocessing(manifest: Manifest) -> Fields:
    return dict(manifest.document["preprocessing"])


def _preprocessing_in_words(manifest: Manifest) -> str:
    known = manifest.preprocessing
    expected = manifest.info.input
    return f"{expected.resize_short_side} to {expected.height} px, {known.interpolation}"


def _labels(a: Manifest, b: Manifest) -> InputComparison:
    changes = []
    if len(a.labels) != len(b.labels):
        counts = [str(len(side.labels)) for side in (a, b)]
        changes.append(Change(field="count", a=counts[0], b=counts[1]))
    else:
        pairs = enumerate(zip(a.labels, b.labels, strict=True))
        changes += [Change(field=f"class {i}", a=x, b=y) for i, (x, y) in pairs if x != y]
    words = [f"{len(side.labels)} names" if side.labels else "none" for side in (a, b)]
    return InputComparison(name="labels", a=words[0], b=words[1], changes=tuple(changes))


def _calibration(manifest: Manifest) -> Fields:
    described = manifest.document.get("calibration")
    return {name: described[name] for name in ("count", "sha256")} if described else {}


def _calibration_in_words(manifest: Manifest) -> str:
    described = manifest.document.get("calibration")
    if not described:
        return "none"
    where = Path(described["source"]).name
    return f"{describe_images(described['count'], where)}, {short(described['sha256'])}"


def _recipe(manifest: Manifest) -> Fields:
    # as parsed: a field that an older manifest does not have yet is at its default
    return asdict(manifest.recipe) if manifest.recipe else {}


def _recipe_in_words(manifest: Manifest) -> str:
    if manifest.recipe is None:
        return "none"
    named = next((name for name, recipe in RECIPES.items() if recipe == manifest.recipe), "own")
    how = manifest.recipe
    return f"{named} (factors {how.equalization}, ranges {how.range_rule}, rounding {how.rounding})"


def _tools_in_words(manifest: Manifest) -> str:
    versions = manifest.document["tool_versions"]
    return f"mobiledeploy {versions.get('mobiledeploy', '?')}, torch {versions.get('torch', '?')}"


def short(sha256: str | None) -> str:
    """Return a sha256 as people compare it."""
    return f"{sha256[:12]}..." if sha256 else "no sha256"
