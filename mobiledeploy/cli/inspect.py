"""`mobiledeploy inspect`: operators, encodings and metadata of an artifact."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.artifact.coverage import require_int8
from mobiledeploy.cli.output import (
    print_json,
    print_table,
    print_warning,
    print_wrapped,
)
from mobiledeploy.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mobiledeploy.inspect.summary import ArtifactSummary, OperatorGroup, TensorSummary

SCHEMA = 1
_INDENT = len("metadata  ")


def inspect(
    artifact: Annotated[
        Path, typer.Argument(metavar="ARTIFACT", help="A .pte, .onnx or .tflite file.")
    ],
    *,
    min_int8_coverage: Annotated[
        float | None,
        typer.Option(
            metavar="FRACTION",
            min=0,
            max=1,
            help="Fail if a smaller fraction of MACs or of activations is in int8.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document to stdout.")
    ] = False,
) -> None:
    """Show the operators, encodings and metadata of an artifact."""
    from mobiledeploy.inspect.inspect_artifact import inspect_artifact

    summary = inspect_artifact(artifact)
    manifest = _manifest_beside(artifact)
    if manifest and manifest["problem"]:
        print_warning(manifest["problem"])
    if as_json:
        coverage = summary.coverage.document() if summary.coverage else None
        header = {"schema": SCHEMA, "kind": "mobiledeploy.inspect"}
        print_json(header | asdict(summary) | {"coverage": coverage, "manifest": manifest})
    else:
        for line in _lines(summary):
            print_wrapped(line, indent=_INDENT)
        for group in summary.groups:
            _print_group(group)
    if min_int8_coverage is not None:
        require_int8(artifact.name, summary.coverage, min_int8_coverage)


def _manifest_beside(artifact: Path) -> dict[str, str] | None:
    """Return the manifest beside an artifact, and its problem; None if there is no manifest.

    The problem is why it does not describe the artifact, or how it is damaged; empty without one.
    """
    from mobiledeploy.artifact.manifest import manifest_path, read_manifest

    path = manifest_path(artifact)
    if not path.exists():
        return None
    try:
        read_manifest(artifact)
    except ArtifactError as error:
        return {"path": str(path), "problem": error.message}
    return {"path": str(path), "problem": ""}


def _lines(summary: ArtifactSummary) -> Iterator[str]:
    yield f"{summary.path}: {summary.format}, {summary.size_bytes:,} bytes"
    yield f"sha256    {summary.sha256}"
    for tensor in summary.inputs:
        yield f"input     {_tensor(tensor)}"
    for tensor in summary.outputs:
        yield f"output    {_tensor(tensor)}"
    sizes = sorted(summary.weights_bytes.items(), key=lambda item: -item[1])
    yield "weights   " + ", ".join(f"{size:,} bytes {datatype}" for datatype, size in sizes)
    yield from _coverage_lines(summary)
    if summary.planned_memory_bytes is not None:
        yield f"memory    {summary.planned_memory_bytes:,} bytes planned outside delegates"
    if summary.opsets:
        opsets = (f"{name or 'ai.onnx'} {number}" for name, number in summary.opsets.items())
        yield f"opsets    {', '.join(opsets)}; IR version {summary.ir_version}"
        oldest = summary.oldest_onnxruntime
        yield f"runtimes  ONNX Runtime {oldest} and newer" if oldest else "runtimes  not known"
    for method in summary.constant_methods:
        yield f"constant  {method.name}: {method.datatype} {list(method.shape)}"
    margin = summary.metadata.get("margin")
    if isinstance(margin, dict) and isinstance(margin.get("steps"), float):
        steps = f"{margin['steps']:.2g} steps from half-way between two codes"
        yield f"margin    {steps}, at {margin.get('layer')}"
    metadata = {key: value for key, value in summary.metadata.items() if key != "margin"}
    for key, value in (*metadata.items(), *summary.other_metadata.items()):
        for name, text in _flattened(key, value):
            yield f"metadata  {name}: {text}"
    if summary.labels:
        yield f"labels    {len(summary.labels)}: {', '.join(summary.labels[:3])}, ..."


def _flattened(name: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield the values inside of a metadata value, each by its path, such as "input.layout"."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flattened(f"{name}.{key}", each)
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for index, each in enumerate(value):
            yield from _flattened(f"{name}[{index}]", each)
    else:
        yield name, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _coverage_lines(summary: ArtifactSummary) -> Iterator[str]:
    coverage = summary.coverage
    if coverage is None:
        yield "int8      could not be counted"
        return
    yield (
        f"int8      {coverage.macs_share:.2%} of {coverage.macs:,} multiply-accumulates,"
        f" {coverage.elements_share:.2%} of {coverage.elements:,} activations"
        f" (one image; {coverage.counted_in})"
    )
    for island in coverage.float_islands:
        yield f"float     {island.name} ({island.operator}): {island.elements:,} activations"


def _tensor(tensor: TensorSummary) -> str:
    shape = ", ".join(map(str, tensor.shape))
    text = f"{tensor.name} {tensor.datatype} [{shape}]".lstrip()
    if tensor.encoding is None:
        return text
    encoding = tensor.encoding
    return (
        f"{text}, quantized to {encoding.datatype}: "
        f"scale {encoding.scale:.9g}, zero-point {encoding.zero_point}"
    )


def _print_group(group: OperatorGroup) -> None:
    from rich import box
    from rich.table import Table

    share = f"{group.int8} of {group.total} operators write 8-bit integers"
    print_wrapped(f"{group.where}: {share}")
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("operator")
    table.add_column("writes")
    table.add_column("count", justify="right")
    table.add_column("share", justify="right")
    for operator in group.operators:
        row = (operator.name, operator.datatype or "?", str(operator.count))
        table.add_row(*row, f"{operator.count / group.total:.1%}")
    print_table(table)
