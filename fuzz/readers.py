"""The readers: what they are given, how it is mutated, and the public code that reads it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz import mutate
from fuzz.artifacts import read_artifact
from fuzz.modules import ModuleOfSeeds
from fuzz.sessions import read_messages
from mobiledeploy.artifact.manifest import parse_manifest
from mobiledeploy.bench.baseline import compare, setup_of
from mobiledeploy.bench.compare import rows_of, to_markdown
from mobiledeploy.bench.json_report import InstructionsResult, TimesResult, read_result
from mobiledeploy.checkpoints.identify import inspect_checkpoint
from mobiledeploy.checkpoints.load_module import load_state
from mobiledeploy.data.arrays import labels_in, read_arrays
from mobiledeploy.data.images import ImageFile, decode
from mobiledeploy.data.label_table import read_label_table
from mobiledeploy.data.labels import load_labels
from mobiledeploy.data.preprocess import default_preprocessing
from mobiledeploy.data.stream import open_stream
from mobiledeploy.errors import WeightsError
from mobiledeploy.evaluation.counts import merge
from mobiledeploy.evaluation.evaluate import read_evaluation
from mobiledeploy.models.build import create_on_meta
from mobiledeploy.models.config import load_config
from mobiledeploy.parity.baseline import read_baseline, regressions
from mobiledeploy.sweep.points import read_grid
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Callable

    from mobiledeploy.network import NetworkInfo

SEEDS = Path(__file__).with_name("seeds")
_CLASSES = 4


@dataclass(frozen=True, slots=True)
class Reader:
    """What reads one kind of file.

    Attributes:
        seeds: File names in `seeds/`. An input keeps its seed's name.
        mutate: Makes an input of a seed.
        read: Reads the file. It may raise a `MobileDeployError` and nothing else.
        is_native: Whether it loads a runtime, which must not run before the process forks.
    """

    seeds: tuple[str, ...]
    mutate: mutate.Mutate
    read: Callable[[Path], object]
    is_native: bool = False


def _read_checkpoint(path: Path) -> None:
    """Look for a MobileNet, then load into the module whose state the seeds hold."""
    with quietly():
        with contextlib.suppress(WeightsError):
            inspect_checkpoint(path, create_on_meta)
        load_state(ModuleOfSeeds(), str(path))


def _read_arrays(path: Path) -> None:
    arrays = read_arrays(path, 3)
    labels_in(path, arrays, list(range(len(arrays.images))), _CLASSES)
    stream = open_stream(path, _info())
    for _ in stream.batches(0, len(stream.labels), 8):
        pass


def _read_shard(path: Path) -> None:
    stream = open_stream(path, _info())
    for _ in stream.batches(0, len(stream.labels), 8):
        pass


def _info() -> NetworkInfo:
    return parse_manifest(SEEDS / "manifest.json").info


def _read_image(path: Path) -> None:
    with quietly():
        decode(ImageFile(path.name, path), default_preprocessing(3), 32)


def _read_config(path: Path) -> None:
    create_on_meta(load_config(path))


def _read_manifest(path: Path) -> None:
    manifest = parse_manifest(path)
    manifest.to_json()
    _ = manifest.info, manifest.artifact_path
    manifest.checkpoint_paths()
    manifest.calibration_paths()
    manifest.code_paths()


def _read_bench(path: Path) -> None:
    result = read_result(path, TimesResult)
    to_markdown(rows_of([result]))
    good = read_result(SEEDS / "bench.json", TimesResult)
    setup_of(result)
    compare(good, result, max_regress=5)


def _read_counts(path: Path) -> None:
    read_result(path, InstructionsResult)


def _read_baseline(path: Path) -> None:
    regressions(read_baseline(path), read_baseline(SEEDS / "parity.json"))


def _read_evaluation(path: Path) -> None:
    merge([read_evaluation(path)])


READERS = {
    "checkpoint": Reader(("zip.pth",), mutate.mutate_zip, _read_checkpoint),
    "old-checkpoint": Reader(("legacy.pth",), mutate.mutate_bytes, _read_checkpoint),
    "safetensors": Reader(("state.safetensors",), mutate.mutate_safetensors, _read_checkpoint),
    "npz": Reader(("stored.npz", "packed.npz"), mutate.mutate_zip, _read_arrays),
    "image": Reader(
        (
            *("image.bmp", "image.gif", "image.jpg", "image.png", "image.ppm", "image.tif"),
            *("image.webp", "palette.png"),
        ),
        mutate.mutate_bytes,
        _read_image,
    ),
    "shard": Reader(("shard.tar",), mutate.mutate_bytes, _read_shard),
    "config": Reader(("config.yml",), mutate.mutate_yaml, _read_config),
    "grid": Reader(("grid.yml",), mutate.mutate_yaml, read_grid),
    "labels": Reader(
        ("labels.txt",), mutate.mutate_bytes, lambda path: load_labels(path, _CLASSES)
    ),
    "label-table": Reader(
        ("labels.csv",),
        mutate.mutate_bytes,
        lambda path: read_label_table(path, ["a.png", "b/c.png", "d.png"], _CLASSES),
    ),
    "manifest": Reader(("manifest.json",), mutate.mutate_json, _read_manifest),
    "bench": Reader(("bench.json",), mutate.mutate_json, _read_bench),
    "counts": Reader(("counts.json",), mutate.mutate_json, _read_counts),
    "baseline": Reader(("parity.json",), mutate.mutate_json, _read_baseline),
    "evaluation": Reader(("evaluation.json",), mutate.mutate_json, _read_evaluation),
    "onnx": Reader(("tiny.onnx",), mutate.mutate_onnx, read_artifact, is_native=True),
    "pte": Reader(("tiny.pte",), mutate.mutate_bytes, read_artifact, is_native=True),
    "tflite": Reader(("tiny.tflite",), mutate.mutate_bytes, read_artifact, is_native=True),
    "device": Reader(
        ("outputs.messages", "bench.messages"),
        mutate.mutate_messages,
        read_messages,
        is_native=True,
    ),
}
