"""`mobiledeploy sensitivity`: which layers lose most accuracy in int8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli import model_options as options
from mobiledeploy.cli.output import print_result, print_table, reserve_stdout, write_json
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.cli.values import parse_resolution
from mobiledeploy.errors import DataError

if TYPE_CHECKING:
    from mobiledeploy.quantization.sensitivity import SensitivityReport

_MEASURED = 32
_LISTED = 15


def sensitivity(
    model: Annotated[str | None, options.MODEL] = None,
    *,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Images to measure on. [default: the calibration images]"
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Number of images to measure on. [default: 32]"),
    ] = None,
    model_arguments: Annotated[list[str] | None, options.MODEL_ARGUMENTS] = None,
    weights: Annotated[str | None, options.WEIGHTS] = None,
    width: Annotated[float | None, options.WIDTH] = None,
    resolution: Annotated[str | None, options.RESOLUTION] = None,
    num_classes: Annotated[int | None, options.NUM_CLASSES] = None,
    head: Annotated[str | None, options.HEAD] = None,
    in_channels: Annotated[int | None, options.IN_CHANNELS] = None,
    config: Annotated[Path | None, options.CONFIG] = None,
    calib_data: Annotated[Path | None, options.CALIB_DATA] = None,
    calib_samples: Annotated[int | None, options.CALIB_SAMPLES] = None,
    ptq: Annotated[options.Ptq | None, options.PTQ] = None,
    mean: Annotated[str | None, options.MEAN] = None,
    std: Annotated[str | None, options.STD] = None,
    crop_pct: Annotated[float | None, options.CROP_PCT] = None,
    interpolation: Annotated[options.Interpolation | None, options.INTERPOLATION] = None,
    seed: Annotated[int | None, options.SEED] = None,
    allow_mismatch: Annotated[bool, options.ALLOW_MISMATCH] = False,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="PATH", help="Write a JSON document (- for stdout)."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Write an SVG chart of all layers.")
    ] = None,
) -> None:
    """Rank the layers by the noise that each one adds in int8."""
    from mobiledeploy.stages import RECIPES
    from mobiledeploy.utils.files import require_writable_files
    from mobiledeploy.utils.progress import step

    arguments = options.parse_model_arguments(model_arguments)
    options.check_model(model, arguments)
    checkpoint = None if weights is None else Path(weights)
    require_writable_files(json_path, plot, read=(checkpoint, config, data, calib_data))
    reserve_stdout(json_path, plot)
    overrides = options.preprocessing_overrides(mean, std, crop_pct, interpolation)
    fields = {
        "arguments": arguments,
        "width": width,
        "resolution": parse_resolution(resolution),
        "num_classes": num_classes,
        "head": head,
        "in_channels": in_channels,
        "seed": seed,
    }
    with showing_progress():
        with step("Loading PyTorch"):
            from mobiledeploy.pipeline.build import load_images
            from mobiledeploy.pipeline.sensitivity import measure_sensitivity
            from mobiledeploy.stages import describe_images
        built = options.build_network(
            model, config=config, weights=weights, fields=fields, overrides=overrides
        )
        calibration = load_images(built, calib_data, calib_samples, for_calibration=True)
        known = calibration if data is None else load_images(built, data)
        if samples is not None and samples > known.count:
            raise DataError(
                f"--samples is {samples}; there are {describe_images(known.count, known.source)}.",
                remedy="Give a smaller number, or more images with --data.",
            )
        images = known.spread(samples or _MEASURED)
        report = measure_sensitivity(
            built,
            calibration,
            images,
            RECIPES[(ptq or options.Ptq.BALANCED).value],
            allow_mismatch=allow_mismatch,
        )
    _print_table(report)
    _write(report, json_path, plot)


def _print_table(report: SensitivityReport) -> None:
    from rich import box
    from rich.table import Table

    from mobiledeploy.stages import describe_images

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("layer")
    for heading in ("SQNR, only it int8", "SQNR, only it float", "gain", "MACs"):
        table.add_column(heading, justify="right")
    for layer in report.layers[:_LISTED]:
        table.add_row(
            layer.name,
            f"{layer.only_sqnr_db:.1f} dB",
            f"{layer.kept_sqnr_db:.2f} dB",
            f"{layer.gain_db:+.2f} dB",
            f"{layer.macs_share:.1%}",
        )
    print_table(table)
    rest = len(report.layers) - _LISTED
    if rest > 0:
        print_result(f"{rest} more layers: --json lists all of them.")
    print_result(
        f"{report.network}: {report.int8_sqnr_db:.2f} dB with every layer in int8, on"
        f" {describe_images(report.count, report.source)}."
    )


def _write(report: SensitivityReport, json_path: Path | None, plot: Path | None) -> None:
    """Write the document and the chart that were asked for."""
    from mobiledeploy.utils.files import write_text

    if json_path is not None:
        write_json(json_path, report.document())
    if plot is not None:
        write_text(plot, _chart(report))


def _chart(report: SensitivityReport) -> str:
    """Return an SVG with a bar per layer: how much keeping it in float would gain."""
    from mobiledeploy.quantization.sensitivity_chart import sensitivity_chart

    return sensitivity_chart(report)
