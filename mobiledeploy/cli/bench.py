"""`mobiledeploy bench`: latency, load time and memory of artifacts on a device, or instructions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobiledeploy.cli.device_options import DEVICE, PYTHON, RUNNER, TIMEOUT
from mobiledeploy.cli.output import console, print_note, print_table, reserve_stdout, write_json
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.cli.values import not_nan, was_given, with_manifests
from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.table import Table
    from rich.text import Text

    from mobiledeploy.bench.baseline import Outcome
    from mobiledeploy.bench.results import InstructionCount, Measurement
    from mobiledeploy.devices.open import Device

_MIB = 2**20


def bench(
    context: typer.Context,
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT", help="Artifacts to measure. The first one is the reference."
        ),
    ],
    *,
    threads: Annotated[
        int,
        typer.Option(
            "--threads", metavar="N", min=1, max=1024, help="Threads that compute one inference."
        ),
    ] = 1,
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs",
            metavar="N",
            min=2,
            help="Measured inferences per artifact. [default: 100, or 5 to count instructions]",
            show_default=False,
        ),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(
            "--warmup",
            metavar="N",
            min=0,
            help="Unmeasured inferences before them. [default: 10, or 2 to count instructions]",
            show_default=False,
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            "--duration",
            metavar="SECONDS",
            help="Measure for this long instead of a number of runs.",
        ),
    ] = None,
    cpu_affinity: Annotated[
        str | None,
        typer.Option(
            "--cpu-affinity", metavar="CORES", help="Run on these cores only, e.g. 4-7 or 0,2."
        ),
    ] = None,
    cool_down: Annotated[
        float,
        typer.Option(
            "--cool-down", metavar="SECONDS", min=0, max=86400, help="Pause between sessions."
        ),
    ] = 0,
    device_uri: Annotated[str, DEVICE] = "local",
    python: Annotated[str, PYTHON] = "",
    runners: Annotated[list[Path] | None, RUNNER] = None,
    timeout: Annotated[float, TIMEOUT] = 600,
    counting: Annotated[
        bool,
        typer.Option(
            "--count-instructions",
            help="Count instructions instead of time, on an exec: device with QEMU.",
        ),
    ] = False,
    min_sqnr: Annotated[
        float,
        typer.Option(
            metavar="DB",
            callback=not_nan,
            help="Minimum SQNR of a device's outputs against those of this machine.",
        ),
    ] = 60,
    baseline: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Earlier --json document to compare with.")
    ] = None,
    max_regress: Annotated[
        str, typer.Option(metavar="PERCENT", help="Maximum slowdown against the baseline.")
    ] = "5%",
    history: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Append the result to a JSON Lines file.")
    ] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Time each operator instead of the network.")
    ] = False,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Profile and write a trace for chrome://tracing."),
    ] = None,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="PATH", help="Write a JSON document (- for stdout)."),
    ] = None,
) -> None:
    """Measure latency, load time and memory of artifacts."""
    from mobiledeploy.bench.measure import RUNS
    from mobiledeploy.devices.open import open_device, parse_cores

    if profile or trace is not None:
        from mobiledeploy.cli.profile import profile_artifacts, require_profile_options

        require_profile_options(context)
        profile_artifacts(
            artifacts,
            device=open_device(device_uri, python=python, timeout_s=timeout),
            runs=RUNS if runs is None else runs,
            threads=threads,
            json_path=json_path,
            trace_path=trace,
        )
        return
    from mobiledeploy.bench.baseline import compare, parse_percent, read_result, require
    from mobiledeploy.bench.history import append
    from mobiledeploy.bench.instructions import count_instructions
    from mobiledeploy.bench.json_report import INSTRUCTIONS, TIMES, to_document
    from mobiledeploy.bench.measure import measure
    from mobiledeploy.bench.outputs import require_outputs
    from mobiledeploy.devices.host import int8_caveat

    _require_meaning(context, baseline=baseline, device_uri=device_uri)
    before = None
    if baseline is not None:
        before = read_result(baseline, INSTRUCTIONS if counting else TIMES)
    allowed = parse_percent(max_regress)
    _require_outputs(json_path, history, read=(*with_manifests(artifacts), baseline))
    take = count_instructions if counting else measure
    with (
        showing_progress(),
        open_device(
            device_uri,
            python=python,
            runners=runners or (),
            timeout_s=timeout,
            counts_instructions=counting,
        ) as device,
    ):
        _require_alike(before, device, threads)
        measurements = take(
            artifacts,
            device=device,
            threads=threads,
            runs=runs,
            warmup=warmup,
            duration_s=duration,
            affinity=parse_cores(cpu_affinity),
            cool_down_s=cool_down,
        )
        host = device.host
    notes = [note for note in (int8_caveat(host),) if note]
    _print(measurements)
    for note in notes:
        print_note(note)
    document = to_document(measurements, host, notes)
    outcome = None
    try:
        if before is not None:
            outcome = compare(document, before, max_regress=allowed)
            document["baseline"] = outcome.document()
    finally:  # the measurement is kept even if it cannot be compared with the baseline
        if json_path is not None:
            write_json(json_path, document)
        if history is not None:
            append(history, document)
    require_outputs(measurements, min_sqnr)
    if outcome is not None:
        _print_outcome(outcome)
        require(outcome)


def _require_meaning(context: typer.Context, *, baseline: Path | None, device_uri: str) -> None:
    """Raise if options contradict one another, or a gate has nothing to compare.

    Raises:
        UsageError: which options.
    """
    if baseline is None and was_given(context, "max_regress"):
        raise UsageError(
            "--max-regress needs --baseline, which was not given.",
            remedy="Add --baseline PATH, a document that an earlier --json wrote, or leave it out.",
        )
    if device_uri == "local" and was_given(context, "min_sqnr"):
        raise UsageError(
            "--min-sqnr compares a device's outputs with this machine's, and needs --device.",
            remedy="Add --device URI, or compare int8 with float by `mobiledeploy parity`.",
        )
    if was_given(context, "duration") and was_given(context, "runs"):
        raise UsageError(
            "--duration and --runs exclude one another.", remedy="Leave one of them out."
        )


def _require_outputs(
    json_path: Path | None, history: Path | None, *, read: Iterable[Path | None]
) -> None:
    """Raise before the measurement if its result cannot be written."""
    from mobiledeploy.bench.history import require_appendable
    from mobiledeploy.utils.files import (
        require_different_files,
        require_no_overwrite,
        require_writable_files,
    )

    inputs = tuple(read)
    require_writable_files(json_path, read=inputs)
    reserve_stdout(json_path)
    if history is not None:
        require_appendable(history)
        require_different_files(json_path, history)
        require_no_overwrite((history,), inputs)


def _require_alike(before: Mapping[str, Any] | None, device: Device, threads: int) -> None:
    """Raise before the measurement if the baseline was measured under other conditions."""
    from mobiledeploy.bench.baseline import circumstances, require_alike

    if before is not None:
        require_alike(circumstances(before["kind"], device.host, threads), before)


def _print_outcome(outcome: Outcome) -> None:
    lines = [
        f"{verdict.artifact}: {verdict.change - 1:+.1%} against the baseline"
        + (f", as ratios to {verdict.yardstick}." if verdict.yardstick else ".")
        for verdict in outcome.verdicts
    ]
    lines += [f"{name}: not in the baseline, so not compared." for name in outcome.added]
    lines += [f"{name}: in the baseline, but not measured now." for name in outcome.missing]
    for line in lines:
        console().print(line)


def _print(measurements: Sequence[Measurement] | Sequence[InstructionCount]) -> None:
    from mobiledeploy.bench.results import InstructionCount, Measurement

    times = [m for m in measurements if isinstance(m, Measurement)]
    counts = [m for m in measurements if isinstance(m, InstructionCount)]
    if times:
        _print_times(times)
    else:
        _print_counts(counts)
    for m in measurements:
        if m.outputs is not None:
            console().print(
                f"{Path(m.artifact).name}: {m.outputs.differing} of {m.outputs.values} outputs "
                f"differ from this machine's ({m.outputs.sqnr_db:.1f} dB).",
            )
        for warning in m.warnings:
            console().print(f"Warning: {Path(m.artifact).name}: {warning}")


def _print_counts(counts: Sequence[InstructionCount]) -> None:
    first = counts[0]
    title = f"{first.device}, one thread, runs: {len(first.instructions)}"
    table = _table(title, "instructions\nmedian", "least", "most", "ratio to first")
    for c in counts:
        table.add_row(
            _named(c),
            f"{c.median:,.0f}",
            f"{min(c.instructions):,}",
            f"{max(c.instructions):,}",
            "" if c is first else f"{c.median / first.median:.4f}",
        )
    print_table(table)


def _table(title: str, *numbers: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("artifact, runtime", overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _named(result: Measurement | InstructionCount) -> Text:
    """Return the cell that says what was measured."""
    from rich.text import Text

    return Text.assemble(f"{Path(result.artifact).name}\n", (result.runtime, "dim"))


def _print_times(measurements: Sequence[Measurement]) -> None:
    from mobiledeploy.bench.stats import paired_ratio

    first = measurements[0]
    table = _table(
        f"{first.device}, threads: {first.threads}, runs: {len(first.times_ms)}",
        *("median\nms", "p90\nms", "p99\nms", "IQR\nms", "ratio to first\n(quartiles)"),
        *("load\nms", "first\nms", "memory\nMiB"),
    )
    for m in measurements:
        ratio = paired_ratio(first, m)
        spread = f"{ratio.median:.3f}\n({ratio.q1:.3f}-{ratio.q3:.3f})"
        table.add_row(
            _named(m),
            f"{m.median_ms:.2f}",
            f"{m.percentile_ms(90):.2f}",
            f"{m.percentile_ms(99):.2f}",
            f"{m.iqr_ms:.2f}",
            "" if m is first else spread,
            f"{m.load_ms:.1f}",
            f"{m.first_ms:.1f}",
            "-" if m.peak_memory_bytes is None else f"{m.peak_memory_bytes / _MIB:.1f}",
        )
    print_table(table)
