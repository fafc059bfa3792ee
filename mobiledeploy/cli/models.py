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
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Iterable

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
    specs = _specs(model, config, given, one=summary)
    from mobiledeploy.models.summary import summarize

    with showing_progress():
        counted = track(specs, "Counting parameters and MACs", total=len(specs))
        summaries = [summarize(spec) for spec in counted]
    if as_json:
        print_json([_document(one, layers=summary) for one in summaries])
    elif summary:
        _print_layers(summaries[0])
    else:
        _print_models(summaries)


def _specs(
    model: str | None, config: Path | None, changes: dict[str, Any], *, one: bool
) -> list[ModelSpec]:
    """Return the requested networks: from a file, by name, or all published ones."""
    from mobiledeploy.models.config import read_config
    from mobiledeploy.models.spec import ModelSpec, family_named
    from mobiledeploy.models.summary import published

    if config is not None:
        return [ModelSpec(**(read_config(config, model) | changes))]
    if one:
        if model is None:
            raise UsageError(
                "--summary lists the layers of one model, but no model was named.",
                remedy="Name one: mobiledeploy models v2 --summary",
            )
        return [replace(ModelSpec(family=family_named(model)), **changes)]
    family = None if model is None else family_named(model)
    found = (spec for spec in published() if family in (None, spec.family))
    # with a width given, the published variants of a family become equal
    return list(dict.fromkeys(replace(spec, **changes) for spec in found))


def _document(summary: ModelSummary, *, layers: bool) -> dict[str, object]:
    """Return the JSON document of a network."""
    document: dict[str, object] = {
        "name": summary.spec.name,
        "spec": asdict(summary.spec),
        "params": summary.params,
        "macs": summary.macs,
        "fp32_bytes": summary.fp32_bytes,
        "int8_bytes": summary.int8_bytes,
    }
    if layers:
        document["layers"] = [
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
    return document


def _print_models(summaries: Iterable[ModelSummary]) -> None:
    """Print one row for each network."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("model")
    for heading in ("width", "input", "params", "MACs M", "fp32 MB", "int8 MB"):
        table.add_column(heading, justify="right")
    table.add_column("variant")
    for summary in summaries:
        spec = summary.spec
        table.add_row(
            spec.family,
            f"{spec.width:g}",
            "{1}x{2}x{3}".format(*spec.input_shape),
            f"{summary.params:,}",
            f"{summary.macs / 1e6:,.2f}",
            f"{summary.fp32_bytes / 1e6:.2f}",
            f"{summary.int8_bytes / 1e6:.2f}",
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
