"""`mobiledeploy models`: parameters, MACs and sizes of the families, or of one model's layers."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobiledeploy.cli.completion import model_names
from mobiledeploy.cli.output import print_json, print_result, print_table
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.cli.values import parse_resolution
from mobiledeploy.errors import UsageError
from mobiledeploy.utils.progress import step, track

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mobiledeploy.models.published_sizes import ModelTotals
    from mobiledeploy.models.spec import ModelSpec
    from mobiledeploy.models.summary import ModelSummary


def models(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="v1, v2, v3-large (or v3), v3-small, v4-conv-small, v4-conv-medium,"
            " v4-conv-large. [default: all]",
            autocompletion=model_names,
            show_default=False,
        ),
    ] = None,
    *,
    width: Annotated[
        float | None,
        typer.Option(
            "--width", metavar="FACTOR", help="Width multiplier. [default: every published one]"
        ),
    ] = None,
    resolution: Annotated[
        str | None,
        typer.Option(
            "--resolution",
            metavar="PIXELS|HxW",
            help="Size of the input image: 224, or 160x120. [default: 224]",
        ),
    ] = None,
    num_classes: Annotated[
        int | None,
        typer.Option(
            "--num-classes",
            metavar="N",
            help="Number of classes; 0 leaves the classifier out. [default: 1000]",
        ),
    ] = None,
    in_channels: Annotated[
        int | None,
        typer.Option(
            "--in-channels", metavar="N", help="Channels of the input image. [default: 3]"
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config", metavar="PATH", help="YAML file that describes a custom architecture."
        ),
    ] = None,
    summary: Annotated[
        bool, typer.Option("--summary", help="List the layers of one model.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document to stdout.")
    ] = False,
) -> None:
    """List the models with their sizes, or the layers of one model."""
    changes = {
        "width": width,
        "resolution": parse_resolution(resolution),
        "num_classes": num_classes,
        "in_channels": in_channels,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if summary:
        _list_layers(_one_spec(model, config, given), as_json=as_json)
        return
    totals = _totals(model, config, given)
    if as_json:
        print_json([_document(one) for one in totals])
    else:
        _print_models(totals)


def _list_layers(spec: ModelSpec, *, as_json: bool) -> None:
    """Print the layers of one network."""
    with showing_progress(), step("Counting parameters and MACs"):
        from mobiledeploy.models.summary import summarize

        summary = summarize(spec)
    if as_json:
        print_json([_document(summary.totals) | {"layers": _layers(summary)}])
    else:
        _print_layers(summary)


def _one_spec(model: str | None, config: Path | None, changes: dict[str, Any]) -> ModelSpec:
    """Return the network of a file or of a name.

    Raises:
        UsageError: neither is given.
    """
    from mobiledeploy.models.spec import ModelSpec, family_named

    if config is not None:
        from mobiledeploy.models.config import read_config

        return ModelSpec(**(read_config(config, model) | changes))
    if model is None:
        raise UsageError(
            "--summary lists the layers of one model, but no model was named.",
            remedy="Name one: mobiledeploy models v2 --summary",
        )
    return replace(ModelSpec(family=family_named(model)), **changes)


def _totals(
    model: str | None, config: Path | None, changes: dict[str, Any]
) -> Sequence[ModelTotals]:
    """Return the sizes of the network of a file, or of all published ones, with changes."""
    from mobiledeploy.models.published_sizes import published_totals
    from mobiledeploy.models.spec import family_named

    if config is not None:
        return _counted([_one_spec(model, config, changes)])
    family = None if model is None else family_named(model)
    found = [totals for totals in published_totals() if family in (None, totals.spec.family)]
    if not changes:
        return found
    # with a width given, the published variants of a family become equal
    return _counted(list(dict.fromkeys(replace(totals.spec, **changes) for totals in found)))


def _counted(specs: Sequence[ModelSpec]) -> list[ModelTotals]:
    with showing_progress():
        with step("Loading PyTorch"):
            from mobiledeploy.models.summary import summarize
        counted = track(specs, "Counting parameters and MACs", total=len(specs))
        return [summarize(spec).totals for spec in counted]


def _document(totals: ModelTotals) -> dict[str, object]:
    """Return the JSON document of a network."""
    return {"name": totals.spec.name, **asdict(totals)}


def _layers(summary: ModelSummary) -> list[dict[str, object]]:
    """Return the JSON documents of a network's layers."""
    return [
        {
            "name": layer.name,
            "kind": layer.kind,
            "output_shape": layer.output_shape,
            "params": layer.params,
            "macs": layer.macs,
            "macs_share": summary.macs_share(layer),
        }
        for layer in summary.layers
    ]


def _print_models(found: Iterable[ModelTotals]) -> None:
    """Print one row for each network."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("model", no_wrap=True)
    for heading in ("width", "input", "params", "MACs\nM", "fp32\nMB", "int8\nMB"):
        table.add_column(heading, justify="right")
    table.add_column("variant")
    for totals in found:
        spec = totals.spec
        table.add_row(
            spec.family,
            f"{spec.width:g}",
            "{1}x{2}x{3}".format(*spec.input_shape),
            f"{totals.params:,}",
            f"{totals.macs / 1e6:,.2f}",
            f"{totals.fp32_bytes / 1e6:.2f}",
            f"{totals.int8_bytes / 1e6:.2f}",
            " ".join(spec.architecture.tags),
        )
    print_table(table)
    print_result("Sizes: weights only, BatchNorm folded. An artifact is slightly larger.")


def _print_layers(summary: ModelSummary) -> None:
    """Print one row for each layer that has parameters, then the totals."""
    from rich.table import Table
    from rich.text import Text

    print_result(Text(summary.spec.name, "bold"))
    table = Table(box=None, pad_edge=False)
    for heading in ("layer", "kind"):
        table.add_column(heading)
    for heading in ("output", "params", "MACs M", "share"):
        table.add_column(heading, justify="right")
    for layer in summary.layers:
        counted = layer.macs > 0
        table.add_row(
            layer.name,
            layer.kind,
            "x".join(map(str, layer.output_shape)),
            f"{layer.params:,}",
            f"{layer.macs / 1e6:.2f}" if counted else "",
            f"{summary.macs_share(layer):.1%}" if counted else "",
        )
    table.add_section()
    table.add_row("total", "", "", f"{summary.params:,}", f"{summary.macs / 1e6:.2f}", "100.0%")
    print_table(table)
