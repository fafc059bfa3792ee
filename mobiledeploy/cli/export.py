"""`mobiledeploy export`: from a trained network to artifacts that have been checked."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.cli import model_options as options
from mobiledeploy.cli.output import (
    console,
    print_json,
    print_result,
    print_table,
    print_warning,
    reserve_stdout,
)
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.cli.values import (
    mixed_precision,
    not_nan,
    parse_keep_float,
    parse_resolution,
    refuse_without,
)
from mobiledeploy.utils.files import STDOUT, require_images

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mobiledeploy.artifact.artifact import Artifact
    from mobiledeploy.pipeline.deploy import Deployment
    from mobiledeploy.stages import CalibrationSet, FloatModel, QuantRecipe


_FOR_INT8 = ("calib_data", "calib_samples", "ptq", "keep_float", "min_sqnr")


def export(
    context: typer.Context,
    model: Annotated[str | None, options.MODEL] = None,
    *,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize to int8. Without it the artifacts are float.")
    ] = False,
    formats: Annotated[
        list[Format] | None,
        typer.Option(
            "--format",
            metavar="pte|onnx|tflite",
            help="Format of the artifact. Can be repeated. [default: pte]",
        ),
    ] = None,
    model_arguments: Annotated[list[str] | None, options.MODEL_ARGUMENTS] = None,
    weights: Annotated[str | None, options.WEIGHTS] = None,
    width: Annotated[float | None, options.WIDTH] = None,
    resolution: Annotated[str | None, options.RESOLUTION] = None,
    num_classes: Annotated[int | None, options.NUM_CLASSES] = None,
    head: Annotated[str | None, options.HEAD] = None,
    in_channels: Annotated[int | None, options.IN_CHANNELS] = None,
    input_format: Annotated[options.Input | None, options.INPUT] = None,
    config: Annotated[Path | None, options.CONFIG] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH|imagenet",
            help="Text file with one class name per line, or the names of ImageNet's classes."
            " [default: those of the weights, if they are known]",
        ),
    ] = None,
    task: Annotated[options.Task | None, options.TASK] = None,
    output: Annotated[list[str] | None, options.OUTPUT] = None,
    activation: Annotated[options.Activation | None, options.ACTIVATION] = None,
    calib_data: Annotated[Path | None, options.CALIB_DATA] = None,
    calib_samples: Annotated[int | None, options.CALIB_SAMPLES] = None,
    ptq: Annotated[options.Ptq | None, options.PTQ] = None,
    mean: Annotated[str | None, options.MEAN] = None,
    std: Annotated[str | None, options.STD] = None,
    crop_pct: Annotated[float | None, options.CROP_PCT] = None,
    interpolation: Annotated[options.Interpolation | None, options.INTERPOLATION] = None,
    seed: Annotated[int | None, options.SEED] = None,
    keep_float: Annotated[
        str | None,
        typer.Option(
            metavar="N|NAMES",
            help="Layers that stay in float: the N noisiest ones, or a list of names.",
        ),
    ] = None,
    min_sqnr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            callback=not_nan,
            help="Keep the fewest layers in float with which the logits reach this SQNR"
            " (signal-to-quantization-noise ratio against float).",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")] = Path("exports"),
    parity: Annotated[
        bool,
        typer.Option("--parity/--no-parity", help="Check the artifacts against the network."),
    ] = True,
    min_int8_coverage: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            min=0,
            max=1,
            help="Fail if a smaller fraction of MACs or of activations is in int8.",
        ),
    ] = None,
    allow_mismatch: Annotated[bool, options.ALLOW_MISMATCH] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document to stdout.")
    ] = False,
) -> None:
    """Export a MobileNet to .pte, .onnx or .tflite, and check it."""
    from mobiledeploy.models.code_spec import is_code
    from mobiledeploy.stages import RECIPES
    from mobiledeploy.utils.progress import step

    arguments = options.parse_model_arguments(model_arguments)
    options.check_model(model, arguments)
    if not int8:
        refuse_without("--int8", context, _FOR_INT8)
    if calib_data is not None:
        require_images(calib_data)  # before PyTorch is loaded and weights are downloaded
    kept = parse_keep_float(keep_float, min_sqnr)
    overrides = options.preprocessing_overrides(mean, std, crop_pct, interpolation)
    fields = {
        "arguments": arguments,
        "width": width,
        "resolution": parse_resolution(resolution),
        "num_classes": num_classes,
        "head": head,
        "in_channels": in_channels,
        "input": input_format.value if input_format else None,
        "seed": seed,
        "task": task.value if task else None,
        **options.split_outputs(
            output,
            activation.value if activation else None,
            of_code=model is not None and is_code(model),
        ),
    }
    reserve_stdout(STDOUT if as_json else None)
    recipe = RECIPES[(ptq or options.Ptq.BALANCED).value]
    wanted = list(dict.fromkeys(formats or [Format.PTE]))
    with showing_progress(count_steps(recipe if int8 else None, wanted, parity=parity)):
        with step("Loading PyTorch and the exporters"):
            from mobiledeploy.pipeline.deploy import deploy
        built = options.build_network(
            model, config=config, weights=weights, labels=labels, fields=fields, overrides=overrides
        )
        calibration: CalibrationSet | None = None
        warnings: tuple[str, ...] = ()
        if int8:
            calibration, warnings = _calibration(built, calib_data, calib_samples)
        deployment = deploy(
            built,
            formats=wanted,
            calibration=calibration,
            recipe=recipe,
            mixed_precision=mixed_precision(kept, min_sqnr),
            out=out,
            parity=parity,
            min_int8_coverage=min_int8_coverage,
            allow_mismatch=allow_mismatch,
        )
    if as_json:
        print_json(_document(deployment) | {"warnings": warnings})
    else:
        _print_deployment(deployment)
    deployment.require_passed()


def count_steps(recipe: QuantRecipe | None, formats: Sequence[Format], *, parity: bool) -> int:
    """Return the number of steps that an export reports.

    Args:
        recipe: None for a float export.
        formats: Formats of the artifacts.
        parity: Whether the artifacts are checked.
    """
    loading = 2  # PyTorch, the network
    folding = 1
    has_images = recipe is not None or parity
    reading = 2 if has_images else 0  # the images, and what they say about the training
    quantizing = 0
    if recipe is not None:
        rescaling = {"none": 0, "cross-layer": 1, "learned": 2}
        quantizing = 1 + rescaling[recipe.equalization]
    return loading + reading + folding + quantizing + len(formats) + parity


def _calibration(
    model: FloatModel, source: Path | None, samples: int | None
) -> tuple[CalibrationSet, tuple[str, ...]]:
    """Return the calibration images, and warnings about the user's own."""
    from mobiledeploy.data.sanity_checks import warnings_for
    from mobiledeploy.pipeline.build import load_images
    from mobiledeploy.utils.progress import step

    with step("Reading calibration images"):
        images = load_images(model, source, samples, for_calibration=True)
        warnings = () if source is None else warnings_for(model, images)
    for warning in warnings:  # now, before minutes are spent on these images
        print_warning(warning)
    return images, (*images.notes, *warnings)


def _print_deployment(deployment: Deployment) -> None:
    """Print the artifacts, the verdict on them, and the next command."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from mobiledeploy.parity.report.rows import loss
    from mobiledeploy.stages import describe_images

    first = deployment.artifacts[0].path
    # the artifacts' names differ in the suffix only: the stem has its own line, so the table fits
    print_result(Text(first.stem, "bold"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("artifact")
    what = {
        "classes": "agreement",
        "regression": "mean error",
        "embedding": "mean cosine",
        "boxes": "mean error",
        "map": "mean IoU",
    }
    several = len(deployment.model.info.outputs) > 1
    last = what["regression" if several else deployment.model.info.task]
    for heading in ("size", "logits differing", "SQNR vs float", last, "int8"):
        table.add_column(heading, justify="right")
    for artifact in deployment.artifacts:
        table.add_row(
            artifact.path.suffix,
            f"{artifact.size_bytes / 1e6:.2f} MB",
            *_figures(deployment, artifact),
        )
    print_table(table)
    report = deployment.parity
    if report is None:
        print_result("Parity was not checked (--no-parity).")
    else:
        images = describe_images(report.data.count, report.data.source)
        print_result(f"Parity {'holds' if report.passed else 'FAILED'} on {images}.")
        if (several or report.task != "classes") and (text := loss(report)):
            print_result(text)
    kept = getattr(getattr(deployment.model, "recipe", None), "float_layers", ())
    if kept:
        print_result(
            f"In float: {', '.join(kept)}. Runtimes round float operators differently, so equal"
            " logits are neither promised nor required."
        )
    print_result("int8: share of multiply-accumulates / of activations, counted from the file.")
    print_result(f"In {first.parent}{os.sep}, each with its manifest (.json) beside it.")
    for path in deployment.kept:
        print_result(f"The earlier {path} was not replaced, because a gate failed.")
    _print_next_command(deployment)


def _print_next_command(deployment: Deployment) -> None:
    paths = " ".join(shlex.quote(str(artifact.path)) for artifact in deployment.artifacts)
    if deployment.failure is None:
        command = f"bench {paths}"
    elif deployment.parity is not None and not deployment.parity.passed:
        command = f"parity {paths} --layers --html report.html"
    else:  # the gate on int8 coverage failed
        command = f"inspect {shlex.quote(str(deployment.artifacts[0].path))}"
    console().print(f"Next: mobiledeploy {command}", soft_wrap=True)


def _figures(deployment: Deployment, artifact: Artifact) -> tuple[str, str, str, str]:
    """Return the cells of an artifact: differing logits, SQNR, agreement, int8 coverage.

    For outputs that are no classes, the mean error or the mean cosine replaces agreement.
    """
    rungs = deployment.parity.rungs if deployment.parity else ()
    rung = next((rung for rung in rungs if rung.artifact == artifact.path.name), None)
    exact = rung.against("integers") if rung else None
    loss = rung.against("float") if rung else None
    found = loss.metrics if loss else {}
    closeness = {
        "classes": ("top1_agreement", ".3f"),
        "regression": ("mean_abs_difference", ".3g"),
        "embedding": ("mean_cosine_similarity", ".4f"),
        "boxes": ("mean_abs_difference", ".3g"),
        "map": ("mean_iou", ".4f"),
    }
    info = deployment.model.info
    name, form = closeness["regression" if len(info.outputs) > 1 else info.task]
    values = cast("Mapping[str, float]", found)
    return (
        f"{exact.metrics['differing_logits']:.0f} of {exact.metrics['logits']:.0f}"
        if exact and exact.metrics
        else "-",
        f"{found['sqnr_db']:.1f} dB" if "sqnr_db" in found else "-",
        format(values[name], form) if name in values else "-",
        _coverage(artifact),
    )


def _coverage(artifact: Artifact) -> str:
    """Return the shares of multiply-accumulates and of activations in int8."""
    if artifact.coverage is None:
        return "-"
    return f"{artifact.coverage.macs_share:.0%} / {artifact.coverage.elements_share:.0%}"


def _document(deployment: Deployment) -> dict[str, Any]:
    """Return the JSON document of `--json`."""
    from mobiledeploy.parity.report.json_report import summary

    report = deployment.parity
    return {
        "schema": 1,
        "artifacts": [
            asdict(artifact)
            | {
                "manifest": str(manifest),
                "spec": dict(deployment.model.info.source),
                "coverage": artifact.coverage.document() if artifact.coverage else None,
            }
            for artifact, manifest in zip(deployment.artifacts, deployment.manifests, strict=True)
        ],
        "parity": None if report is None else summary(report),
        "failure": None if deployment.failure is None else deployment.failure.message,
        "kept": [str(path) for path in deployment.kept],
        "notes": list(deployment.model.info.provenance.notes),
    }
