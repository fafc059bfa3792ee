"""`mobiledeploy export`: from a trained network to artifacts that have been checked."""

from __future__ import annotations

import os
import shlex
from dataclasses import asdict
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobiledeploy.artifact.coverage import require_int8
from mobiledeploy.cli import model_options as options
from mobiledeploy.cli.output import console, print_json, print_table
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.cli.values import not_nan
from mobiledeploy.errors import UsageError
from mobiledeploy.models.spec import family_named
from mobiledeploy.network import RECIPES
from mobiledeploy.quantization.mixed_precision import MixedPrecision

if TYPE_CHECKING:
    from mobiledeploy.artifact.artifact import Artifact
    from mobiledeploy.pipeline.deploy import Deployment


class Format(StrEnum):
    """What `--format` takes."""

    PTE = "pte"
    ONNX = "onnx"


def export(
    model: Annotated[str | None, options.MODEL] = None,
    *,
    int8: Annotated[bool, typer.Option("--int8", help="Quantize to int8; else float.")] = False,
    formats: Annotated[
        list[Format] | None,
        typer.Option("--format", help="Artifact to write; may be given twice. [default: pte]"),
    ] = None,
    weights: Annotated[str | None, options.WEIGHTS] = None,
    width: Annotated[float | None, options.WIDTH] = None,
    resolution: Annotated[int | None, options.RESOLUTION] = None,
    num_classes: Annotated[int | None, options.NUM_CLASSES] = None,
    in_channels: Annotated[int | None, options.IN_CHANNELS] = None,
    config: Annotated[Path | None, options.CONFIG] = None,
    labels: Annotated[Path | None, typer.Option(help="Class names, one a line.")] = None,
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
            help="Layers that stay float: so many, noisiest first, or by name.",
        ),
    ] = None,
    min_sqnr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            callback=not_nan,
            help="Keep as few layers in float as reach this SQNR of the logits.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("exports"),
    parity: Annotated[
        bool, typer.Option("--parity/--no-parity", help="Check the artifacts against PyTorch.")
    ] = True,
    min_int8_coverage: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Least share of MACs and of activations in int8."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Export a MobileNet to .pte and ONNX, and check the result."""
    if model is not None:
        family_named(model)  # a misspelt name is told before PyTorch has loaded
    for_int8 = (calib_data, calib_samples, ptq, keep_float, min_sqnr)
    if not int8 and any(given is not None for given in for_int8):
        raise UsageError(
            "--calib-data, --calib-samples, --ptq, --keep-float and --min-sqnr are for --int8,"
            " which was not given.",
            remedy="Add --int8, or leave them out.",
        )
    demand = MixedPrecision.parse(keep_float, min_sqnr)
    fields = {
        "width": width,
        "resolution": resolution,
        "num_classes": num_classes,
        "in_channels": in_channels,
        "seed": seed,
    }
    with showing_progress():
        deployment, warnings_for = _deploy(
            model,
            weights=weights,
            fields=fields,
            config=config,
            labels=labels,
            overrides=options.preprocessing_overrides(mean, std, crop_pct, interpolation),
            int8=int8,
            formats=list(dict.fromkeys(formats or [Format.PTE])),
            calib_data=calib_data,
            calib_samples=calib_samples,
            ptq=(ptq or options.Ptq.BALANCED).value,
            demand=demand,
            out=out,
            parity=parity,
        )
    if as_json:
        print_json(_document(deployment) | {"warnings": warnings_for})
    else:
        _print_table(deployment)
    if deployment.parity is not None:
        from mobiledeploy.parity.ladder import require

        require(deployment.parity)
    if min_int8_coverage is not None:
        for artifact in deployment.artifacts:
            require_int8(artifact.path.name, artifact.coverage, min_int8_coverage)


def _deploy(
    model: str | None,
    *,
    weights: str | None,
    fields: dict[str, Any],
    config: Path | None,
    labels: Path | None,
    overrides: dict[str, Any],
    int8: bool,
    formats: list[Format],
    calib_data: Path | None,
    calib_samples: int | None,
    ptq: str,
    demand: MixedPrecision | None,
    out: Path,
    parity: bool,
) -> tuple[Deployment, tuple[str, ...]]:
    """Run the pipeline on what the flags say; return what it made, and what it warned of."""
    from mobiledeploy.utils.progress import step

    with step("Loading PyTorch and the exporters"):
        from mobiledeploy.data import sanity_checks
        from mobiledeploy.pipeline.build import load_images
        from mobiledeploy.pipeline.deploy import deploy
    built = options.build_network(
        model, config=config, weights=weights, labels=labels, fields=fields, overrides=overrides
    )
    calibration = load_images(built, calib_data, calib_samples) if int8 else None
    warnings: tuple[str, ...] = ()
    if calibration is not None and calib_data is not None:
        warnings = sanity_checks.warnings_for(built, calibration)
    _warn(warnings)
    deployment = deploy(
        built,
        formats=[f.value for f in formats],
        calibration=calibration,
        recipe=RECIPES[ptq],
        demand=demand,
        out=out,
        parity=parity,
    )
    return deployment, warnings


def _warn(warnings: tuple[str, ...]) -> None:
    """Say what looks wrong about the user's images, before minutes are spent on them."""
    from rich.text import Text

    for doubt in warnings:
        console().print(Text("Warning:", "bold yellow"), doubt, soft_wrap=True)


def _print_table(deployment: Deployment) -> None:
    """Show what was written, whether it holds, and what to type next."""
    from rich import box
    from rich.table import Table

    first = deployment.artifacts[0].path
    # names differ in their suffix only: the stem once, above, so that 80 columns hold the table
    table = Table(title=first.stem, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("artifact")
    for heading in ("size", "logits differing", "SQNR vs float", "agreement", "int8"):
        table.add_column(heading, justify="right")
    for artifact in deployment.artifacts:
        table.add_row(
            artifact.path.suffix,
            f"{artifact.size_bytes / 1e6:.2f} MB",
            *_figures(deployment, artifact),
        )
    print_table(table)
    say = partial(console().print, soft_wrap=True)
    report = deployment.parity
    if report is None:
        say("Parity was not checked (--no-parity).")
    else:
        images = f"{report.data.count} images of {report.data.source}"
        say(f"Parity {'holds' if report.passed else 'FAILS'} on {images}.")
    kept = getattr(getattr(deployment.model, "recipe", None), "float_layers", ())
    if kept:
        say(
            f"In float: {', '.join(kept)}. Runtimes round float each in their own way: equality to"
            " the last bit is not promised here, and not demanded."
        )
    say("int8: share of multiply-accumulates / of activations, counted from the file.")
    say(f"In {first.parent}{os.sep}, each with its manifest (.json) beside it.")
    paths = " ".join(shlex.quote(str(artifact.path)) for artifact in deployment.artifacts)
    say(f"Next: mobiledeploy bench {paths}")


def _figures(deployment: Deployment, artifact: Artifact) -> tuple[str, str, str, str]:
    """Return an artifact's cells: differing logits, SQNR, agreement, int8 coverage."""
    rungs = deployment.parity.rungs if deployment.parity else ()
    mine = next((rung for rung in rungs if rung.artifact == artifact.path.name), None)
    exact = mine.against("integers") if mine else None
    loss = mine.against("float") if mine else None
    return (
        f"{exact.metrics['differing_logits']:.0f} of {exact.metrics['logits']:.0f}"
        if exact and exact.metrics
        else "-",
        f"{loss.metrics['sqnr_db']:.1f} dB" if loss and loss.metrics else "-",
        f"{loss.metrics['top1_agreement']:.3f}" if loss and loss.metrics else "-",
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
                "coverage": artifact.coverage.document() if artifact.coverage else None,
            }
            for artifact, manifest in zip(deployment.artifacts, deployment.manifests, strict=True)
        ],
        "parity": None if report is None else summary(report),
        "notes": list(deployment.model.info.provenance.notes),
    }
