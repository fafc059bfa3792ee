"""`mobiledeploy sweep`: export, check and measure many variants, and pick one under a budget."""

from __future__ import annotations

import csv
import io
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.artifact.artifact import Format
from mobiledeploy.cli.figures import TitledRow, print_figures
from mobiledeploy.cli.output import (
    print_note,
    print_result,
    print_warning,
    reserve_stdout,
    write_json,
)
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.errors import GateError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mobiledeploy.sweep.make_point import Plan
    from mobiledeploy.sweep.pick import Row
    from mobiledeploy.sweep.points import Point
    from mobiledeploy.sweep.run import Workers
    from mobiledeploy.sweep.store import MeasuredArtifact, Result

_STORE = "sweep.sqlite"
_ANY = "Can be repeated, or several separated by commas."


def sweep(
    models: Annotated[
        list[str] | None, typer.Option("--model", metavar="MODEL", help=f"Families. {_ANY}")
    ] = None,
    *,
    widths: Annotated[
        list[str] | None, typer.Option("--width", metavar="X", help=f"Width multipliers. {_ANY}")
    ] = None,
    resolutions: Annotated[
        list[str] | None,
        typer.Option("--resolution", metavar="PIXELS", help=f"Sides of the input. {_ANY}"),
    ] = None,
    presets: Annotated[
        list[str] | None,
        typer.Option(
            "--ptq",
            metavar="PRESET",
            help=f"fast, balanced, best, or fp32 for float. {_ANY} [default: balanced]",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weights", metavar="PATH", help=f"imagenet, random, or checkpoints. {_ANY}"),
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="FORMAT",
            help=f"float, or pixels as rgba-u8. {_ANY} [default: float]",
        ),
    ] = None,
    grid_file: Annotated[
        Path | None,
        typer.Option("--grid", metavar="PATH", help="YAML file with these lists instead."),
    ] = None,
    formats: Annotated[
        list[Format] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="pte, onnx or tflite. Can be repeated. [default: onnx]",
        ),
    ] = None,
    calib_data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Calibration images. [default: the bundled ones]"),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Labelled images to count accuracy on.")
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of them. [default: all]")
    ] = None,
    devices: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="URI",
            help="Where to measure latency: URI or NAME=URI. Can be repeated.",
        ),
    ] = None,
    runs: Annotated[
        int,
        typer.Option(metavar="N", min=2, max=1_000_000, help="Measured inferences per artifact."),
    ] = 50,
    counting: Annotated[
        bool,
        typer.Option(
            "--count-instructions",
            help="Count instructions instead of time on exec: devices with QEMU.",
        ),
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=64, help="Exports at the same time. [default: 1]"),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Export on a Ray cluster: ray, or ray://HOST:PORT."),
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option(metavar="MS", min=0, help="Largest median latency.")
    ] = None,
    max_size: Annotated[
        float | None, typer.Option(metavar="MB", min=0, help="Largest file.")
    ] = None,
    max_macs: Annotated[
        float | None, typer.Option(metavar="MILLIONS", min=0, help="Most multiply-accumulates.")
    ] = None,
    min_top1: Annotated[
        float | None, typer.Option(metavar="SHARE", min=0, max=1, help="Least top-1 accuracy.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Try failed points again.")] = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the artifacts and of the results.")
    ] = Path("sweep"),
    html: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Write a page with an interactive chart."),
    ] = None,
    csv_path: Annotated[
        Path | None, typer.Option("--csv", metavar="PATH", help="Write the table as CSV.")
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="PATH", help="Write a JSON document (- for stdout)."),
    ] = None,
) -> None:
    """Measure variants of a network, and pick one under a budget."""
    from mobiledeploy.devices.open import open_device
    from mobiledeploy.sweep import points as grids
    from mobiledeploy.sweep.make_point import DeviceName, Plan
    from mobiledeploy.sweep.page import require_plotly, to_html
    from mobiledeploy.sweep.pick import Budget, ranked, rows_of
    from mobiledeploy.sweep.run import run
    from mobiledeploy.sweep.store import Store
    from mobiledeploy.utils.files import (
        STDOUT,
        require_artifact_folder,
        require_images,
        require_writable_files,
        write_text,
    )

    require_writable_files(html, csv_path, json_path, read=[grid_file, data, calib_data])
    reserve_stdout(html, csv_path, json_path)
    given = (models, widths, resolutions, presets, weights, inputs)
    if html is not None:
        require_plotly()  # now, not after hours
    axes = dict(zip(grids.AXES, map(grids.split, given), strict=True))
    points = _points(axes, grid_file)
    for path in filter(None, (calib_data, data)):
        require_images(path)
    if cluster is not None:
        _require_cluster(cluster, points, jobs)
    for device in devices or ():
        open_device(
            DeviceName(device).uri
        )  # connects to nothing yet, but refuses what is no device
    if counting and not any(DeviceName(each).counts for each in devices or ()):
        raise UsageError(
            "--count-instructions needs an exec: device with QEMU; there is none.",
            remedy='Add one, for example --device "exec:qemu-aarch64 -cpu cortex-a76".',
        )
    require_artifact_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    budget = Budget(
        max_latency_ms=max_latency,
        max_size_bytes=None if max_size is None else max_size * 1e6,
        max_macs=None if max_macs is None else max_macs * 1e6,
        min_top1=min_top1,
    )
    plan = Plan(
        formats=tuple(dict.fromkeys(str(each) for each in formats or [Format.ONNX])),
        out=out,
        calib_data=calib_data,
        data=data,
        samples=samples,
        devices=tuple(dict.fromkeys(devices or ["local"])),
        runs=runs,
        jobs=jobs or 1,
        budget=budget,
        counting=counting,
    )
    with showing_progress(), Store(out / _STORE) as store, _workers(plan, cluster) as workers:
        results = run(points, plan, store, workers, retry=retry)
    rows = rows_of(results, budget)
    best = ranked(rows)
    if json_path is not None:
        write_json(json_path, _document(results, rows, best))
    if csv_path is not None:
        write_text(csv_path, _as_csv(rows))
    if html is not None:
        write_text(html, to_html(results, rows, best, plan.devices))
    if STDOUT not in (html, csv_path, json_path):
        _print(results, rows, best, plan.devices)
    _require_success(results, rows)


def _require_success(results: Sequence[Result], rows: Sequence[Row]) -> None:
    """Raise unless a point succeeded and an artifact keeps the budget.

    Raises:
        GateError: the message says which.
    """
    from mobiledeploy.sweep.pick import no_pick

    if results and all(result.state in ("failed", "interrupted") for result in results):
        raise GateError(
            f"Every point failed, the first one with: {results[0].error}",
            remedy="Correct the cause, and run the command again with --retry.",
        )
    if not rows or all(row.missed for row in rows):
        raise GateError(f"{no_pick(rows)}.", remedy="Relax the budget, or add smaller points.")


def _require_cluster(cluster: str, points: Sequence[Point], jobs: int | None) -> None:
    """Raise unless the points can be made on this cluster."""
    from mobiledeploy.models.code_spec import is_code
    from mobiledeploy.sweep.ray_workers import require_ray

    if cluster != "ray" and not cluster.startswith("ray://"):
        raise UsageError(f"--cluster is {cluster!r}; expected ray, or ray://HOST:PORT.")
    if jobs is not None:
        raise UsageError(
            "--jobs is for this machine; a cluster decides how many exports run.",
            remedy="Leave out --jobs or --cluster.",
        )
    for point in points:
        if is_code(point.model):
            raise UsageError(
                f"{point.model} is code of this machine, which a cluster does not have.",
                remedy="Leave out --cluster.",
            )
    require_ray()


@contextmanager
def _workers(plan: Plan, cluster: str | None) -> Iterator[Workers]:
    """Yield the workers of this machine, or of a cluster, and disconnect from it."""
    from mobiledeploy.sweep.local_workers import LocalWorkers

    if cluster is None:
        with LocalWorkers(plan) as local:
            yield local
        return
    from mobiledeploy.sweep.ray_workers import RayWorkers

    with RayWorkers(plan, cluster) as workers:
        yield workers


def _points(axes: dict[str, list[str]], grid_file: Path | None) -> list[Point]:
    from mobiledeploy.sweep.points import grid, read_grid

    if grid_file is None:
        return grid(axes)
    if any(axes.values()):
        raise UsageError(
            "--grid replaces --model, --width, --resolution, --ptq, --weights and --input.",
            remedy="Leave these options out, or leave out --grid.",
        )
    return read_grid(grid_file)


def _print(
    results: Sequence[Result], rows: Sequence[Row], best: Sequence[Row], devices: Sequence[str]
) -> None:
    from mobiledeploy.sweep.make_point import DeviceName
    from mobiledeploy.sweep.pick import no_pick, reason

    names = [DeviceName(device).name or device for device in devices]
    headings = ["size\nMB", "SQNR\ndB", "agree-\nment", "top-1", *names, "front"]
    titled = [
        TitledRow(
            title=row.name,
            details=(f"misses the budget: {row.missed}",) if row.missed else (),
            figures=_figures(row, devices),
        )
        for row in rows
    ]
    if rows:
        print_figures(headings, titled)
        print_result("Latency: median in ms. front: nothing beats it in accuracy, latency, size.")
        if any(row.artifact.instructions for row in rows):
            print_result("M: millions of instructions of an inference, median.")
    for result in results:
        is_in_table = result.state == "over budget" and result.artifacts
        if result.state != "done" and not is_in_table:
            print_warning(f"{result.point.title}: {result.error}", title=result.state.capitalize())
    if any(result.state == "failed" for result in results):
        print_note("The failures are kept. --retry tries these points again.")
    if not best:
        print_result(f"{no_pick(rows)}.")
        return
    for word, row in zip(("Pick", "Second"), best, strict=False):
        print_result(f"{word}: {row.name}, top-1 {row.artifact.top1:.4f}")
        print_result(f"  {row.artifact.path}")
    print_result(reason(best))


def _figures(row: Row, devices: Sequence[str]) -> tuple[str, ...]:
    artifact = row.artifact

    def shown(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return (
        f"{artifact.size_bytes / 1e6:.2f}",
        shown(artifact.sqnr_db, ".1f"),
        shown(artifact.agreement, ".3f"),
        shown(artifact.top1, ".4f"),
        *(_figure_on(artifact, device) for device in devices),
        "*" if row.on_front else "",
    )


def _figure_on(artifact: MeasuredArtifact, device: str) -> str:
    """Return the latency on a device, or the instructions if they were counted."""
    if device in artifact.instructions:
        return f"{artifact.instructions[device] / 1e6:.2f} M"
    latency = artifact.latency_ms.get(device)
    return "-" if latency is None else f"{latency:.2f}"


def _document(
    results: Sequence[Result], rows: Sequence[Row], best: Sequence[Row]
) -> dict[str, object]:
    return {
        "schema": 1,
        "kind": "mobiledeploy.sweep",
        "points": [
            {"point": asdict(each.point), "state": each.state, "error": each.error}
            for each in results
        ],
        "artifacts": [_flat(row) for row in rows],
        "pick": best[0].artifact.path if best else None,
        "second": best[1].artifact.path if len(best) > 1 else None,
    }


def _flat(row: Row) -> dict[str, object]:
    artifact = asdict(row.artifact)
    return asdict(row.point) | artifact | {"missed": row.missed, "on_front": row.on_front}


def _as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    flat = [_flat(row) for row in rows]
    for each in flat:
        for name in ("latency_ms", "instructions", "machines"):
            by_device = each.pop(name)
            assert isinstance(by_device, dict)
            each |= {f"{name} {device}": value for device, value in by_device.items()}
    columns = list(dict.fromkeys(name for each in flat for name in each))
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()
