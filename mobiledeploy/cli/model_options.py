"""Options of the commands that build a network, and what they mean."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from mobiledeploy.cli.output import console
from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.network import FloatModel

MODEL = typer.Argument(metavar="MODEL", help="v1, v2, v3-large (v3), v3-small; or --config.")
WEIGHTS = typer.Option(metavar="imagenet|random|PATH", help="Weights to load. [default: imagenet]")
WIDTH = typer.Option(help="Width multiplier. [default: 1.0]")
RESOLUTION = typer.Option(help="Side of the square input. [default: 224]")
NUM_CLASSES = typer.Option(help="Outputs of the classifier. [default: the weights']")
IN_CHANNELS = typer.Option(help="Channels of the input image. [default: 3]")
CONFIG = typer.Option(help="YAML file that describes a network of your own (docs/models.md).")
CALIB_DATA = typer.Option(help="Images to calibrate with: a folder, or .npz. [default: built in]")
CALIB_SAMPLES = typer.Option(min=1, help="How many of them to use. [default: all]")
PTQ = typer.Option(
    help="How hard to try to keep the logits: seconds, tens of seconds, minutes."
    " [default: balanced]"
)
MEAN = typer.Option(metavar="R,G,B", help="Of pixels in [0, 1].")
STD = typer.Option(metavar="R,G,B", help="Of pixels in [0, 1].")
CROP_PCT = typer.Option(help="Crop / resized short side. [default: 0.875]")
INTERPOLATION = typer.Option(help="Of the resize. [default: bilinear]")
SEED = typer.Option(help="For random weights. [default: 0]")


class Interpolation(StrEnum):
    """What `--interpolation` takes."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    NEAREST = "nearest"


class Ptq(StrEnum):
    """What `--ptq` takes: the names in `mobiledeploy.network.RECIPES`."""

    FAST = "fast"
    BALANCED = "balanced"
    BEST = "best"


def preprocessing_overrides(
    mean: str | None,
    std: str | None,
    crop_pct: float | None,
    interpolation: Interpolation | None,
) -> dict[str, Any]:
    """Return the fields of `Preprocessing` that flags set.

    Raises:
        UsageError: numbers that are none.
    """
    given = {
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
        "crop_pct": crop_pct,
        "interpolation": interpolation.value if interpolation else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def build_network(
    model: str | None,
    *,
    config: Path | None,
    weights: str | None,
    labels: Path | None = None,
    fields: dict[str, Any],
    overrides: dict[str, Any],
) -> FloatModel:
    """Build what the flags say, and tell what the weights brought with them.

    Args:
        model: The family's name.
        config: A file in its place.
        weights: Name or path.
        labels: Class names.
        fields: Of `ModelSpec`; those that are None were not given.
        overrides: Of `Preprocessing`.
    """
    from mobiledeploy.pipeline.build import build

    given = {name: value for name, value in fields.items() if value is not None}
    built = build(
        model, config=config, weights=weights, labels=labels, preprocessing=overrides, **given
    )
    _announce(built)
    return built


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    """Parse "0.485,0.456,0.406"."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{flag} is {text!r}; expected one number per channel, separated by commas.",
            remedy=f"For example: {flag} 0.485,0.456,0.406",
        ) from None


def _announce(model: FloatModel) -> None:
    """Say what the weights brought with them, and loudly if they are random."""
    from rich.padding import Padding
    from rich.text import Text

    for note in model.info.provenance.notes:
        console().print(Padding(Text(note), (0, 0, 0, 2), expand=False))
    if model.info.provenance.source == "random":
        console().print(
            Text("Random weights:", "bold yellow"),
            "good for latency and size only; the network recognises nothing.",
        )
