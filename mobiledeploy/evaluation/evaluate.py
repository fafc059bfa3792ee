"""Run networks on labelled images part by part, and keep what was counted.

Input: networks and an `ImageStream`. Output: an `Evaluation`. Invariant: the result does not depend
on how the images are split into parts, batches or runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from mobiledeploy.errors import DataError
from mobiledeploy.evaluation.counts import KIND, Counts, Evaluation, NetworkResult, merge
from mobiledeploy.utils.files import reason_of, require_regular, write_whole
from mobiledeploy.utils.json_model import explain_invalid
from mobiledeploy.utils.progress import track

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mobiledeploy.data.stream import Batch, ImageStream

_REMEDY = "Pass a file that `mobiledeploy evaluate --json PATH` wrote."
_BATCH = 16
_SAVED_EVERY = 16  # batches
_DERIVED = {"networks": {"__all__": {"classes", "confusions"}}}  # not kept: counted again in a ms

Images = NDArray[np.float32]
Logits = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Network:
    """A network to evaluate.

    Attributes:
        name: The artifact's file, or "float PyTorch".
        sha256: sha256 of the file, or of the checkpoint.
        runtime: Name and version of its runtime.
        run: Maps images, (N, C, H, W), to logits, (N, classes).
    """

    name: str
    sha256: str
    runtime: str
    run: Callable[[Images], Logits]


def evaluate(
    networks: Sequence[Network],
    stream: ImageStream,
    *,
    output: str = "",
    shard: tuple[int, int] = (1, 1),
    resume: Path | None = None,
) -> Evaluation:
    """Return what networks answer on labelled images.

    Args:
        networks: The networks; the others are compared with the first.
        stream: The images.
        output: Name of the output that the networks return.
        shard: Number of the part to evaluate and the number of parts, from (1, 1) for all.
        resume: A file that keeps what has been counted. If it exists, counting goes on from there.

    Raises:
        DataError: an image cannot be read, or `resume` holds another evaluation.
    """
    count = len(stream.labels)
    number, parts = shard
    first, last = count * (number - 1) // parts, count * number // parts
    done = _empty(networks, stream, first, output)
    if resume is not None and resume.exists():
        done = _resumed(resume, done, last)
    start = done.parts[0][1]
    total = -(-(last - start) // _BATCH)
    batches = stream.batches(start, last, _BATCH)
    pending: list[Evaluation] = []
    try:
        for batch in track(batches, "Evaluating", total):
            counted = _counted(networks, batch, done, start)
            start = counted.parts[0][1]
            pending.append(counted)
            if len(pending) == _SAVED_EVERY:
                done, pending = merge([done, merge(pending)]), []
                _save(resume, done)
    finally:  # also after Ctrl-C: nothing is counted twice
        if pending:
            done = merge([done, merge(pending)])
        _save(resume, done)
    return done


def _empty(networks: Sequence[Network], stream: ImageStream, first: int, output: str) -> Evaluation:
    return Evaluation(
        data=stream.source,
        data_sha256=stream.sha256,
        images=len(stream.labels),
        class_names=stream.class_names,
        output=output,
        parts=((first, first),),
        networks=tuple(
            NetworkResult(
                name=network.name, sha256=network.sha256, runtime=network.runtime, counts=Counts()
            )
            for network in networks
        ),
    )


def _counted(networks: Sequence[Network], batch: Batch, like: Evaluation, start: int) -> Evaluation:
    """Return the evaluation of one batch, whose first image has the number `start`."""
    logits = [network.run(batch.inputs) for network in networks]
    counts = [Counts.of(each, batch.labels, logits[0]) for each in logits]
    results = tuple(
        result.model_copy(update={"counts": counted})
        for result, counted in zip(like.networks, counts, strict=True)
    )
    part = (start, start + len(batch.labels))
    return like.model_copy(update={"parts": (part,), "networks": results})


def _resumed(path: Path, empty: Evaluation, last: int) -> Evaluation:
    """Return what a file has kept.

    Raises:
        DataError: it cannot be read, or is of other images, networks or another part.
    """
    kept = read_evaluation(path)
    empty.require_same(kept)
    first = empty.parts[0][0]
    if len(kept.parts) != 1 or kept.parts[0][0] != first or kept.parts[0][1] > last:
        raise DataError(
            f"{path} keeps another part of the images.",
            remedy="Pass the same --shard as before, or another file.",
        )
    return kept


def read_evaluation(path: Path) -> Evaluation:
    """Read a document that `evaluate --json` or `--resume` wrote.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    require_regular(path, DataError)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.get("kind") != KIND:
            raise DataError(f"{path} is no result of `mobiledeploy evaluate`.", remedy=_REMEDY)
        return Evaluation.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise DataError(f"{path} is damaged: {explain_invalid(error)}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"Could not read {path}: {reason_of(error)}.", remedy=_REMEDY) from error


def _save(path: Path | None, evaluation: Evaluation) -> None:
    if path is None:
        return
    with write_whole(path) as part:
        part.write_text(evaluation.model_dump_json(exclude=_DERIVED), encoding="utf-8")
