"""`mobiledeploy evaluate`: the accuracy of artifacts on labelled images of any number."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mobiledeploy.cli.figures import TitledRow, print_figures
from mobiledeploy.cli.output import print_result, print_table, reserve_stdout, write_json
from mobiledeploy.cli.progress import showing_progress
from mobiledeploy.cli.values import with_manifests
from mobiledeploy.errors import UsageError

if TYPE_CHECKING:
    from mobiledeploy.evaluation.counts import Confusion, Evaluation, NetworkResult

_LISTED = 10
_NAME_WIDTH = 22  # so that two names and four figures fit 80 columns
_HEADINGS = ("top-1", "95% interval", "top-5", "agreement")


def evaluate(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT",
            help="Artifacts with their manifests beside them; with --merge, JSON results of parts.",
        ),
    ],
    *,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Labelled images: a folder, tar shards or a .npz file."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of images. [default: all]")
    ] = None,
    with_float: Annotated[
        bool, typer.Option("--float", help="Also run the float network, and compare with it.")
    ] = False,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Checkpoint for --float. [default: the path that the manifest records]",
        ),
    ] = None,
    threads: Annotated[
        int,
        typer.Option(metavar="N", min=1, max=1024, help="Threads that compute one inference."),
    ] = 1,
    output: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The output whose classes are counted. [default: the first]"
        ),
    ] = None,
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Evaluate the I-th of N parts of the images.")
    ] = "1/1",
    merge: Annotated[
        bool, typer.Option("--merge", help="Add up results of parts instead of running anything.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Keep what was counted in this file, and go on from it."),
    ] = None,
    listed: Annotated[
        int,
        typer.Option("--list", metavar="N", min=0, help="Classes and mistakes to list."),
    ] = _LISTED,
    json_path: Annotated[
        Path | None,
        typer.Option("--json", metavar="PATH", help="Write a JSON document (- for stdout)."),
    ] = None,
) -> None:
    """Count how often artifacts name the right class."""
    from mobiledeploy.utils.files import STDOUT, require_writable_files

    read = artifacts if merge else list(with_manifests(artifacts))
    require_writable_files(json_path, resume, read=read)
    reserve_stdout(json_path)
    if merge:
        if data is not None or resume is not None or output is not None:
            raise UsageError("--merge reads results only.", remedy="Leave the other options out.")
        result = _merged(artifacts)
    else:
        if data is None:
            raise UsageError("There are no images.", remedy="Pass labelled images with --data.")
        from mobiledeploy.pipeline.evaluate import evaluate_artifacts

        with showing_progress():
            result = evaluate_artifacts(
                artifacts,
                data,
                samples=samples,
                with_float=with_float,
                weights=weights,
                threads=threads,
                output=output,
                shard=_shard(shard),
                resume=resume,
            )
    if json_path is not None:
        write_json(json_path, result.model_dump(mode="json"))
    if json_path != STDOUT:
        _print(result, listed)


def _merged(paths: list[Path]) -> Evaluation:
    from mobiledeploy.evaluation.counts import merge
    from mobiledeploy.evaluation.evaluate import read_evaluation

    return merge([read_evaluation(path) for path in paths])


def _shard(text: str) -> tuple[int, int]:
    """Return the number of a part and the number of parts.

    Raises:
        UsageError: the text is not "I/N" with 1 <= I <= N.
    """
    number, _, parts = text.partition("/")
    if re.fullmatch(r"[0-9]{1,9}/[0-9]{1,9}", text):
        found = int(number), int(parts)
        if 1 <= found[0] <= found[1]:
            return found
    raise UsageError(
        f"--shard is {text!r}; expected I/N with 1 <= I <= N, for example 2/7.",
    )


def _print(result: Evaluation, listed: int) -> None:
    rows = [
        TitledRow(title=network.name, details=(network.runtime,), figures=_figures(network))
        for network in result.networks
    ]
    of_all = "" if result.done == result.images else f" of {result.images}"
    print_result(f"{result.done}{of_all} images of {result.data}")
    print_figures(_HEADINGS, rows)
    if listed:
        _print_classes(result, listed)
        _print_confusions(result, listed)


def _print_classes(result: Evaluation, listed: int) -> None:
    """Print the accuracy by class of the last network, beside that of the first one."""
    from rich import box
    from rich.table import Table

    first, last = result.networks[0], result.networks[-1]
    by_first = {each.label: each.accuracy for each in first.classes}
    mistakes: dict[int, Confusion] = {}
    for pair in last.confusions:  # the most frequent first
        mistakes.setdefault(pair.label, pair)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("class", overflow="ellipsis", no_wrap=True, max_width=_NAME_WIDTH)
    for heading in ("images", "top-1", *(("first network",) if len(result.networks) > 1 else ())):
        table.add_column(heading, justify="right")
    table.add_column("often taken for", overflow="ellipsis", no_wrap=True, max_width=_NAME_WIDTH)
    classes = sorted(last.classes, key=lambda each: (each.accuracy, -each.images, each.label))
    for each in classes[:listed]:
        others = [f"{by_first[each.label]:.4f}"] if len(result.networks) > 1 else []
        mistake = mistakes.get(each.label)
        taken_for = "-"
        if mistake is not None:
            taken_for = f"{_class_name(result, mistake.predicted)}, {mistake.images} x"
        figures = (str(each.images), f"{each.accuracy:.4f}", *others)
        table.add_row(_class_name(result, each.label), *figures, taken_for)
    print_result("\nClasses with the lowest top-1 accuracy of the last network:")
    print_table(table)
    if len(classes) > listed:
        print_result(f"{len(classes) - listed} more: --list {len(classes)} shows all of them.")


def _print_confusions(result: Evaluation, listed: int) -> None:
    last = result.networks[-1]
    if last.confusions:
        print_result("\nMost frequent mistakes of the last network:")
    for pair in last.confusions[:listed]:
        label, predicted = (_class_name(result, index) for index in (pair.label, pair.predicted))
        print_result(f"  {pair.images:5} x {label} taken for {predicted}")


def _class_name(result: Evaluation, index: int) -> str:
    """Return the first of a class's names, or its index."""
    if not result.class_names:
        return f"class {index}"
    return result.class_names[index].partition(",")[0]


def _figures(network: NetworkResult) -> tuple[str, ...]:
    low, high = network.top1_interval
    return (
        f"{network.top1_accuracy:.4f}",
        f"{low:.4f} to {high:.4f}",
        f"{network.top5_accuracy:.4f}",
        f"{network.agreement:.4f}",
    )
