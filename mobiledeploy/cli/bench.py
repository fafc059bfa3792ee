"""`mobiledeploy bench`: latency, load time and memory of artifacts on a device, or instructions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli.bench_tables import print_comparison, print_document
from mobiledeploy.cli.device_options import DEVICE, PYTHON, RUNNER, TIMEOUT, split_runners
from mobiledeploy.cli.output import reserve_stdout, write_json
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.cli.values import (
    not_nan,
    parse_celsius,
    parse_seconds,
    was_given,
    with_manifests,
)
from mobiledeploy.devices.cores import Cores, named_cores
from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobiledeploy.bench.json_report import InstructionsResult, TimesResult


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
            max=1_000_000,
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
            max=1_000_000,
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
    cores: Annotated[
        Cores,
        typer.Option(
            "--cores",
            metavar="big|little|all",
            help="Run on one kind of cores, told apart by their highest frequency: little is the"
            " slowest cluster, big the others.",
        ),
    ] = Cores.ALL,
    cool_down: Annotated[
        float,
        typer.Option(
            "--cool-down",
            metavar="SECONDS",
            parser=parse_seconds,
            help="Pause between sessions, for example 30s.",
        ),
    ] = 0,
    wait_below: Annotated[
        float | None,
        typer.Option(
            "--wait-below",
            metavar="CELSIUS",
            parser=parse_celsius,
            help="Before each session, wait until the hottest sensor is below this temperature,"
            " for example 37C, but no longer than --timeout.",
        ),
    ] = None,
    device_uri: Annotated[str, DEVICE] = "local",
    python: Annotated[str, PYTHON] = "",
    runners: Annotated[list[str] | None, RUNNER] = None,
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

    runner, built_runners = split_runners(runners)
    if profile or trace is not None:
        from mobiledeploy.cli.profile import profile_artifacts, require_profile_options

        require_profile_options(context)
        profile_artifacts(
            artifacts,
            device=open_device(
                device_uri,
                python=python,
                runner=runner,
                built_runners=built_runners,
                timeout_s=timeout,
            ),
            runs=RUNS if runs is None else runs,
            threads=threads,
            json_path=json_path,
            trace_path=trace,
        )
        return
    from mobiledeploy.bench.baseline import (
        compare,
        parse_percent,
        planned_setup,
        require_no_regression,
        require_same_setup,
        setup_of,
    )
    from mobiledeploy.bench.history import append
    from mobiledeploy.bench.instructions import count_instructions
    from mobiledeploy.bench.json_report import (
        InstructionsResult,
        TimesResult,
        read_result,
        to_document,
    )
    from mobiledeploy.bench.measure import measure
    from mobiledeploy.bench.outputs import require_outputs
    from mobiledeploy.devices.host import int8_caveat

    _require_consistent_options(context, baseline=baseline, device_uri=device_uri)
    kind: type[TimesResult | InstructionsResult] = InstructionsResult if counting else TimesResult
    before = None if baseline is None else read_result(baseline, kind)
    allowed = parse_percent(max_regress)
    _require_writable_outputs(json_path, history, read=(*with_manifests(artifacts), baseline))
    take = count_instructions if counting else measure
    with (
        showing_progress(),
        open_device(
            device_uri,
            python=python,
            runner=runner,
            built_runners=built_runners,
            timeout_s=timeout,
            counts_instructions=counting,
        ) as device,
    ):
        affinity = parse_cores(cpu_affinity) or named_cores(device.host, cores)
        if before is not None:  # before minutes of measuring, not after
            planned = planned_setup(kind, device.host, threads, affinity)
            require_same_setup(planned, setup_of(before))
        measurements = take(
            artifacts,
            device=device,
            threads=threads,
            runs=runs,
            warmup=warmup,
            duration_s=duration,
            affinity=affinity,
            cool_down_s=cool_down,
            wait_below_c=wait_below,
            wait_timeout_s=timeout,
        )
        host = device.host
    notes = [note for note in (_cores_note(cores, affinity), int8_caveat(host)) if note]
    document = to_document(measurements, host, notes)
    print_document(document)
    comparison = None
    try:
        if before is not None:
            comparison = compare(document, before, max_regress=allowed)
            document = document.model_copy(update={"baseline": comparison})
    finally:  # the measurement is kept even if it cannot be compared with the baseline
        content = document.model_dump(mode="json")
        if json_path is not None:
            write_json(json_path, content)
        if history is not None:
            append(history, content)
    require_outputs(measurements, min_sqnr)
    if comparison is not None:
        print_comparison(comparison)
        require_no_regression(comparison)


def _require_consistent_options(
    context: typer.Context, *, baseline: Path | None, device_uri: str
) -> None:
    """Raise if options contradict one another, or a gate has nothing to compare.

    Raises:
        UsageError: The message names the options.
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
    if was_given(context, "cores") and was_given(context, "cpu_affinity"):
        raise UsageError(
            "--cores and --cpu-affinity exclude one another.", remedy="Leave one of them out."
        )
    if was_given(context, "duration") and was_given(context, "runs"):
        raise UsageError(
            "--duration and --runs exclude one another.", remedy="Leave one of them out."
        )


def _cores_note(cores: Cores, affinity: Sequence[int]) -> str:
    """Return which cores `--cores` chose; "" for all."""
    if cores is Cores.ALL:
        return ""
    return f"Ran on the {cores} cores: {', '.join(map(str, affinity))}."


def _require_writable_outputs(
    json_path: Path | None, history: Path | None, *, read: Iterable[Path | None]
) -> None:
    """Raise before the measurement if its result cannot be written.

    Raises:
        UsageError: An output is an input, or two outputs are the same file.
        RuntimeFailedError: A file cannot be written.
    """
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
