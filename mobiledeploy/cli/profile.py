"""`mobiledeploy bench --profile`: where the time goes, operator by operator."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledeploy.cli.output import console, print_table, write_json
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.cli.values import was_given, with_manifests
from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import typer

    from mobiledeploy.bench.profile import Profile
    from mobiledeploy.devices.open import Device

SCHEMA = 1
_SLOWEST = 15
# of `bench`, what a profile knows what to do with
_PARAMETERS = frozenset(
    {"artifacts", "threads", "runs", "profile", "trace", "json_path"}
    | {"device_uri", "python", "timeout"}
)


def require_options(context: typer.Context) -> None:
    """Raise where `bench` was given an option that a profile would leave out of account.

    Raises:
        UsageError: which one.
    """
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if was_given(context, parameter.name or "") and parameter.name not in _PARAMETERS
    ]
    if given:
        raise UsageError(
            f"A profile times operators, alone: {', '.join(given)} would mean nothing.",
            remedy="Leave out either --profile and --trace, or these.",
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
    """Profile artifacts one after the other; print tables, write documents.

    Raises:
        UsageError: both documents would go to one place.
        RuntimeFailedError: one of them could not be written; nothing is timed then.
    """
    from mobiledeploy.bench.chrome_trace import to_chrome_trace
    from mobiledeploy.bench.profile import profile, profile_on
    from mobiledeploy.devices.host import int8_caveat
    from mobiledeploy.utils.files import require_writable_files

    require_writable_files(json_path, trace_path, read=with_manifests(artifacts))
    with showing_progress(), device:
        profiles = [
            profile(path, runs=runs, threads=threads)
            if device.is_local
            else profile_on(device, path, runs=runs, threads=threads)
            for path in artifacts
        ]
        note = "" if device.is_local else int8_caveat(device.host)
    for each in profiles:
        _print(each)
    if note:
        console().print(f"Note: {note}")
    if json_path is not None:
        write_json(json_path, _document(profiles), indent=1)
    if trace_path is not None:
        write_json(trace_path, to_chrome_trace(profiles), indent=1)


def _document(profiles: Sequence[Profile]) -> dict[str, Any]:
    entries = [
        asdict(p) | {"sum_us": p.sum_us, "by_kind": [asdict(kind) for kind in p.by_kind()]}
        for p in profiles
    ]
    return {"schema": SCHEMA, "kind": "mobiledeploy.profile", "profiles": entries}


def _print(profile: Profile) -> None:
    from rich.text import Text

    total = profile.sum_us
    console().print(Text(f"{Path(profile.artifact).name}, {profile.runtime}", style="bold"))
    console().print(
        f"{profile.method}. Their sum is {total / 1e3:.3f} ms; the whole network takes"
        f" {profile.whole_us / 1e3:.3f} ms.",
        highlight=False,
    )
    _table(
        ("operator", "count", "us", "share"),
        ((k.kind, str(k.count), f"{k.total_us:.0f}", f"{k.share:.1%}") for k in profile.by_kind()),
    )
    slowest = sorted(profile.operators, key=lambda o: -o.median_us)[:_SLOWEST]
    _table(
        ("slowest", "us", "share"),
        ((o.name, f"{o.median_us:.0f}", f"{o.median_us / total:.1%}") for o in slowest),
    )
    rest = len(profile.operators) - len(slowest)
    if rest:
        console().print(f"And {rest} more: --json and --trace have them all.")


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
