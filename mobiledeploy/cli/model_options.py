"""Options of the commands that build a network: `export` and `sensitivity`."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from mobiledeploy.cli.completion import model_names, weights_names
from mobiledeploy.cli.output import console, print_warning
from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from mobiledeploy.stages import FloatModel

MODEL = typer.Argument(
    metavar="MODEL",
    help="v1, v2, v3-large (or v3), v3-small, v4-conv-small, v4-conv-medium, v4-conv-large, or"
    " FILE:CALLABLE, your own code that returns the network. Not needed with --config.",
    autocompletion=model_names,
    show_default=False,
)
MODEL_ARGUMENTS = typer.Option(
    "--model-arg",
    metavar="NAME=VALUE",
    help="Argument for the code of MODEL. Can be repeated.",
)
WEIGHTS = typer.Option(
    metavar="imagenet|random|NAME|PATH",
    help="Weights: a name, such as timm/mobilenetv2_050.lamb_in1k, or the path of a checkpoint."
    " [default: imagenet]",
    autocompletion=weights_names,
    show_default=False,
)
WIDTH = typer.Option(metavar="FACTOR", help="Width multiplier. [default: 1.0]")
RESOLUTION = typer.Option(
    metavar="PIXELS|HxW", help="Size of the input image: 224, or 160x120. [default: 224]"
)
NUM_CLASSES = typer.Option(metavar="N", help="Number of classes. [default: as in the weights]")
IN_CHANNELS = typer.Option(metavar="N", help="Channels of the input image. [default: 3]")
INPUT = typer.Option(
    "--input",
    metavar="float|rgba-u8|bgra-u8|rgb-u8|gray-u8",
    help="What the app writes into the input: normalised planes (float), or 8-bit pixels. With"
    " -nchw appended, as in rgba-u8-nchw, the pixels are planes. [default: float]",
)
HEAD = typer.Option(
    metavar="LAYERS",
    help='What follows the features: "dropout,linear:256,relu,linear:5". [default: as published]',
)
CONFIG = typer.Option(metavar="PATH", help="YAML file that describes a custom architecture.")
CALIB_DATA = typer.Option(
    metavar="PATH",
    help="Calibration images: a folder or a .npz file. [default: the bundled images]",
)
CALIB_SAMPLES = typer.Option(
    metavar="N", min=1, help="Number of calibration images to use. [default: all]"
)
PTQ = typer.Option(
    metavar="fast|balanced|best",
    help="Quantization effort: seconds, tens of seconds, or minutes. [default: balanced]",
)
MEAN = typer.Option(metavar="R,G,B", help="Mean per channel, for pixels in [0, 1].")
STD = typer.Option(metavar="R,G,B", help="Standard deviation per channel, for pixels in [0, 1].")
CROP_PCT = typer.Option(
    metavar="FRACTION", help="Center crop as a fraction of the resized short side. [default: 0.875]"
)
INTERPOLATION = typer.Option(
    metavar="bilinear|bicubic|nearest|lanczos|bilinear-aliased",
    help="Interpolation when resizing images; bilinear-aliased is without antialiasing."
    " [default: bilinear]",
)
ALLOW_MISMATCH = typer.Option(
    "--allow-mismatch",
    help="Go on if the BatchNorm statistics say that this is not the network that was trained.",
)
TASK = typer.Option(
    metavar="classes|regression|embedding|boxes|map",
    help="What the outputs mean. Agreement is judged for classes only."
    " [default: regression for one output, embedding without a classifier, else classes]",
)
ACTIVATION = typer.Option(
    metavar="softmax|sigmoid|normalize|none",
    help="What the artifact computes from the logits, in float. The output is then called"
    " probabilities, or embedding for normalize. [default: none]",
)
OUTPUT = typer.Option(
    metavar="logits|probabilities|top5|codes|NAME:TASK",
    help="What the artifact returns: logits; their softmax (probabilities); the five largest"
    " probabilities with their classes (top5); or the int8 codes of the logits. Of a network from"
    " code: NAME:TASK of each output, in order; repeat the option. [default: logits; of code, map"
    " for an image, else as for --task]",
)
SEED = typer.Option(metavar="N", help="Seed of random weights. [default: 0]")


class Interpolation(StrEnum):
    """Values of `--interpolation`."""

    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    NEAREST = "nearest"
    LANCZOS = "lanczos"
    BILINEAR_ALIASED = "bilinear-aliased"


class Task(StrEnum):
    """Values of `--task`."""

    CLASSES = "classes"
    REGRESSION = "regression"
    EMBEDDING = "embedding"
    BOXES = "boxes"
    MAP = "map"


class Input(StrEnum):
    """Values of `--input`: the names in `mobiledeploy.network.INPUT_FORMATS`."""

    FLOAT = "float"
    RGBA_U8 = "rgba-u8"
    BGRA_U8 = "bgra-u8"
    RGB_U8 = "rgb-u8"
    GRAY_U8 = "gray-u8"
    RGBA_U8_NCHW = "rgba-u8-nchw"
    BGRA_U8_NCHW = "bgra-u8-nchw"
    RGB_U8_NCHW = "rgb-u8-nchw"
    GRAY_U8_NCHW = "gray-u8-nchw"


class Activation(StrEnum):
    """Values of `--activation`."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NORMALIZE = "normalize"
    NONE = "none"


ANSWERS = {"logits": "none", "probabilities": "softmax", "top5": "top5", "codes": "codes"}
"""Values of `--output` that say what the artifact returns, by its name in `network.Activation`."""


def split_outputs(
    outputs: list[str] | None, activation: str | None, *, of_code: bool
) -> dict[str, Any]:
    """Return the fields `outputs` and `activation` of what `--output` and `--activation` say.

    Args:
        outputs: The values of `--output`.
        activation: The value of `--activation`.
        of_code: Whether the network comes from code: a family has one output.

    Raises:
        UsageError: both say what the artifact returns, or outputs of a family are named.
    """
    if outputs is None or len(outputs) != 1 or outputs[0] not in ANSWERS:
        if outputs and not of_code:
            raise UsageError(
                f"--output is {', '.join(outputs)}; expected one of {', '.join(ANSWERS)}.",
                remedy="Outputs are named for networks from code only (FILE:CALLABLE).",
            )
        return {"outputs": outputs, "activation": activation}
    if activation is not None:
        raise UsageError(
            f"--output {outputs[0]} and --activation {activation} both say what the artifact"
            " returns.",
            remedy="Pass one of them.",
        )
    return {"outputs": None, "activation": ANSWERS[outputs[0]]}


class Ptq(StrEnum):
    """Values of `--ptq`: the names in `mobiledeploy.stages.RECIPES`."""

    FAST = "fast"
    BALANCED = "balanced"
    BEST = "best"


def preprocessing_overrides(
    mean: str | None,
    std: str | None,
    crop_pct: float | None,
    interpolation: Interpolation | None,
) -> dict[str, Any]:
    """Return the fields of `Preprocessing` that options set.

    Raises:
        UsageError: a mean or a standard deviation is not a list of numbers.
    """
    given = {
        "mean": _numbers("--mean", mean),
        "std": _numbers("--std", std),
        "crop_pct": crop_pct,
        "interpolation": interpolation.value if interpolation else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def parse_model_arguments(texts: list[str] | None) -> dict[str, Any] | None:
    """Parse NAME=VALUE of every --model-arg; values are read as YAML: 0.5, true, null, text.

    Raises:
        UsageError: one is not NAME=VALUE, or its value is no single value.
    """
    import yaml

    if not texts:
        return None
    arguments: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            parsed = yaml.safe_load(value) if value else ""
        except (yaml.YAMLError, ValueError, RecursionError):
            parsed = value
        if not equals or not name.isidentifier() or isinstance(parsed, dict | list):
            raise UsageError(
                f"--model-arg is {text!r}; expected NAME=VALUE with a single value.",
                remedy="For example: --model-arg width=0.5",
            )
        arguments[name] = parsed if isinstance(parsed, bool | int | float | None) else str(parsed)
    return arguments


def check_model(model: str | None, arguments: dict[str, Any] | None) -> None:
    """Check what can be checked before PyTorch is loaded.

    Raises:
        UsageError: there is no such family, or arguments are given for a family.
    """
    from mobiledeploy.models.code_spec import is_code
    from mobiledeploy.models.spec import family_named

    if model is not None and is_code(model):
        return
    if model is not None:
        family_named(model)
    if arguments:
        raise UsageError(
            "--model-arg is for a network from code, but MODEL names none.",
            remedy="Name it as FILE:CALLABLE, for example net.py:create.",
        )


def build_network(
    model: str | None,
    *,
    config: Path | None,
    weights: str | None,
    labels: Path | None = None,
    fields: dict[str, Any],
    overrides: dict[str, Any],
) -> FloatModel:
    """Build the network that the options describe, and print what was inferred from its weights.

    Args:
        model: Name of the family.
        config: YAML file, instead of a name.
        weights: Name or path of the weights.
        labels: File of class names.
        fields: Fields of `ModelSpec`; None where an option was not given.
        overrides: Fields of `Preprocessing`.
    """
    from mobiledeploy.pipeline.build import build

    given = {name: value for name, value in fields.items() if value is not None}
    built = build(
        model, config=config, weights=weights, labels=labels, preprocessing=overrides, **given
    )
    _print_provenance(built)
    return built


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    """Parse "0.485,0.456,0.406"."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option} is {text!r}; expected one number per channel, separated by commas.",
            remedy=f"For example: {option} 0.485,0.456,0.406",
        ) from None


def _print_provenance(model: FloatModel) -> None:
    """Print what was inferred from the weights, and warn if they are random."""
    for note in model.info.provenance.notes:
        console().print(f"  {note}", soft_wrap=True)
    if model.info.provenance.source == "random":
        print_warning(
            "good for latency and size only; the network recognises nothing.",
            title="Random weights",
        )
