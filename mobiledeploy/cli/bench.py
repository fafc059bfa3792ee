"""`mobiledeploy bench`: latency, load time and memory of artifacts on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli.output import console, print_json, showing_progress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mobiledeploy.types import Measurement

_MIB = 2**20


def bench(
    artifacts: Annotated[
        list[Path], typer.Argument(metavar="ARTIFACT...", help="The first is the reference.")
    ],
    *,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads that compute one inference.")
    ] = 1,
    runs: Annotated[
        int, typer.Option("--runs", min=2, help="Inferences that count, per artifact.")
    ] = 100,
    warmup: Annotated[
        int, typer.Option("--warmup", min=0, help="Inferences before these, per artifact.")
    ] = 10,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="PATH", help="Write a JSON document; - is stdout."),
    ] = None,
) -> None:
    """Measure latency, load time and memory, all artifacts against one another."""
    from mobiledeploy.bench import measure
    from mobiledeploy.bench.document import to_document
    from mobiledeploy.files import write_whole
    from mobiledeploy.runtimes.host import describe_host, int8_caveat

    with showing_progress():
        measurements = measure(artifacts, threads=threads, runs=runs, warmup=warmup)
    host = describe_host()
    notes = [note for note in (int8_caveat(host),) if note]
    _print_table(measurements)
    for note in notes:
        console().print(f"Note: {note}", markup=False)
    if json_path is None:
        return
    document = to_document(measurements, host, notes)
    if str(json_path) == "-":
        print_json(document)
    else:
        with write_whole(json_path) as part:
            part.write_text(json.dumps(document, indent=2) + "\n")


def _print_table(measurements: Sequence[Measurement]) -> None:
    from rich import box
    from rich.table import Table

    from mobiledeploy.bench import paired_ratio

    first = measurements[0]
    title = f"{first.device}, threads: {first.threads}, runs: {len(first.times_ms)}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("artifact, runtime", overflow="fold")
    numbers = ("median\nms", "p90\nms", "p99\nms", "IQR\nms", "ratio to first\n(quartiles)")
    for heading in (*numbers, "load\nms", "first\nms", "memory\nMiB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for m in measurements:
        ratio = paired_ratio(first, m)
        spread = f"{ratio.median:.3f}\n({ratio.q1:.3f}-{ratio.q3:.3f})"
        table.add_row(
            f"{Path(m.artifact).name}\n[dim]{m.runtime}[/]",
            f"{m.median_ms:.2f}",
            f"{m.percentile_ms(90):.2f}",
            f"{m.percentile_ms(99):.2f}",
            f"{m.iqr_ms:.2f}",
            "" if m is first else spread,
            f"{m.load_ms:.1f}",
            f"{m.first_ms:.1f}",
            f"{m.peak_memory_bytes / _MIB:.1f}",
        )
    console().print(table)
    for m in measurements:
        for warning in m.warnings:
            console().print(f"Warning: {Path(m.artifact).name}: {warning}", markup=False)
