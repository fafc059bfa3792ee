"""`mobiledeploy bench --profile`: the time of each operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.cli.output import (
    print_note,
    print_result,
    print_table,
    reserve_stdout,
    write_json,
)
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.cli.values import options_given, with_manifests
from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import typer

    from mobiledeploy.bench.profile import Profile
    from mobiledeploy.devices.open import Device

_SLOWEST = 15
# the parameters of `bench` that apply to a profile
_PARAMETERS = frozenset(
    {"artifacts", "threads", "runs", "profile", "trace", "json_path"}
    | {"device_uri", "python", "runners", "timeout"}
)


def require_profile_options(context: typer.Context) -> None:
    """Raise if `bench` was given an option that does not apply to a profile.

    Raises:
        UsageError: The message names the options.
    """
    others = {parameter.name or "" for parameter in context.command.params} - _PARAMETERS
    given = options_given(context, others)
    if given:
        raise UsageError(
            f"These options do not apply to --profile and --trace: {', '.join(given)}.",
            remedy="Remove either these, or --profile and --trace.",
        )


def profile_artifacts(
    artifacts: Sequence[Path],
    *,
    device: Device,
    runs: int,
    threads: int,
    json_path: Path | None,
    trace_path: Path | None,
) -> None:
    """Profile artifacts one after another; print tables and write documents.

    Raises:
        UsageError: Both documents have the same path.
        RuntimeFailedError: A document cannot be written. This is checked before anything is timed.
    """
    from mobiledeploy.bench.chrome_trace import to_chrome_trace
    from mobiledeploy.bench.profile import ProfileDocument, profile
    from mobiledeploy.devices.host import int8_caveat
    from mobiledeploy.utils.files import require_writable_files

    require_writable_files(json_path, trace_path, read=with_manifests(artifacts))
    reserve_stdout(json_path, trace_path)
    with showing_progress(), device:
        profiles = tuple(
            profile(path, device=device, runs=runs, threads=threads) for path in artifacts
        )
        caveat = int8_caveat(device.host)
    for each in profiles:
        _print(each)
    if caveat:
        print_note(caveat)
    if json_path is not None:
        document = ProfileDocument(profiles=profiles)
        write_json(json_path, document.model_dump(mode="json"), indent=1)
    if trace_path is not None:
        write_json(trace_path, to_chrome_trace(profiles), indent=1)


def _print(profile: Profile) -> None:
    from rich.text import Text

    print_result(Text(Path(profile.artifact).name, style="bold"))
    print_result(f"{profile.runtime} on {profile.device}")
    print_result(f"Timed with {profile.method}.")
    print_result(
        f"Sum of the operators: {profile.sum_us / 1e3:.3f} ms. Whole network: "
        f"{profile.whole_us / 1e3:.3f} ms."
    )
    _table(
        ("operator", "count", "us", "share"),
        ((k.kind, str(k.count), f"{k.total_us:.0f}", f"{k.share:.1%}") for k in profile.by_kind),
    )
    slowest = sorted(profile.operators, key=lambda o: -o.median_us)[:_SLOWEST]
    _table(
        ("slowest", "us", "share"),
        ((o.name, f"{o.median_us:.0f}", f"{profile.share_of(o.median_us):.1%}") for o in slowest),
    )
    rest = len(profile.operators) - len(slowest)
    if rest:
        print_result(f"{rest} more operators are in the documents of --json and --trace.")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(headings[0], overflow="fold")
    for heading in headings[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    print_table(table)
