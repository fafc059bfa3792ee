"""Networks of pixels: equality on noise, and latency from bytes to logits.

    python benchmarks/pixel_inputs.py noise ARTIFACT... --frames 100000
    python benchmarks/pixel_inputs.py latency PIXEL_ARTIFACT FLOAT_ARTIFACT

`noise` runs artifacts of one network, exported with `--input rgba-u8`, on random bytes, alpha
included, and counts the logits that differ from the integer reference. `latency` compares an
artifact of pixels with one of float, whose images NumPy normalises.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import time
from pathlib import Path

import numpy as np

from mobiledeploy.artifact.manifest import read_manifest
from mobiledeploy.network import Preprocessing
from mobiledeploy.pipeline.rebuild import rebuild
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import QuantizedModel
from mobiledeploy.utils.threads import on_one_thread

_BATCH = 250


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    noise = commands.add_parser("noise")
    noise.add_argument("artifacts", type=Path, nargs="+")
    noise.add_argument("--frames", type=int, default=100_000)
    noise.add_argument("--seed", type=int, default=0)
    latency = commands.add_parser("latency")
    latency.add_argument("pixels", type=Path)
    latency.add_argument("planes", type=Path)
    latency.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    if arguments.command == "noise":
        compare_noise(arguments.artifacts, arguments.frames, arguments.seed)
    else:
        compare_latency(arguments.pixels, arguments.planes, arguments.rounds)


@on_one_thread
def compare_noise(paths: list[Path], frames: int, seed: int) -> None:
    """Print a row per artifact: the logits that differ from the reference on random frames."""
    manifest = read_manifest(paths[0])
    model = rebuild(manifest).deployed
    assert isinstance(model, QuantizedModel)
    shape = manifest.info.input.artifact_shape
    random = np.random.default_rng(seed)
    found = _differing(IntegerReference(model), paths, random, (frames, *shape))
    for path, (differing, total) in zip(paths, found, strict=True):
        print(f"| {path.name} | {frames:,} | {differing:,} of {total:,} |", flush=True)


def _differing(
    reference: IntegerReference,
    paths: list[Path],
    random: np.random.Generator,
    shape: tuple[int, ...],
) -> list[tuple[int, int]]:
    differing, total = [0] * len(paths), [0] * len(paths)
    runners = [open_runner(path) for path in paths]
    frames, *size = shape
    for first in range(0, frames, _BATCH):
        pixels = random.integers(0, 256, (min(_BATCH, frames - first), *size), np.uint8)
        expected = reference.run({"input": pixels})["logits"]
        for index, runner in enumerate(runners):
            logits = runner.run({"input": pixels})["logits"]
            differing[index] += int(np.count_nonzero(logits != expected))
            total[index] += logits.size
    return list(zip(differing, total, strict=True))


def compare_latency(pixels_path: Path, planes_path: Path, rounds: int) -> None:
    """Print medians of CPU time, which other programs disturb less, and the ratio; interleaved."""
    with open_runner(pixels_path) as pixels_runner, open_runner(planes_path) as planes_runner:
        height, width, _ = pixels_runner.input_shape
        frame = np.random.default_rng(0).integers(0, 256, (1, height, width, 4), np.uint8)
        planes = _normalizer(frame)
        images = planes()
        jobs = {
            "pixels to logits": lambda: pixels_runner.run({"input": frame}),
            "normalise and float to logits": lambda: planes_runner.run({"input": planes()}),
            "float to logits": lambda: planes_runner.run({"input": images}),
        }
        times: dict[str, list[float]] = {name: [] for name in jobs}
        order = np.random.default_rng(1)
        for round_ in range(rounds + 10):
            for name in order.permutation(list(jobs)):
                began = time.thread_time()
                jobs[name]()
                if round_ >= 10:
                    times[name].append(1e3 * (time.thread_time() - began))
    first = np.array(times["pixels to logits"])
    for name, each in times.items():
        ratio = np.median(first / np.array(each))
        print(f"{name}: {np.median(each):.2f} ms, pixels take {ratio:.3f} of it")


def _normalizer(frame: np.ndarray):  # noqa: ANN202 - a closure over its buffers
    """Return the fastest of the ways tried with NumPy to normalise RGBA bytes into planes."""
    preprocessing = Preprocessing()
    mean, std = (
        np.array(values, np.float32)[:, None, None]
        for values in (preprocessing.mean, preprocessing.std)
    )
    factor, shift = 1 / (255 * std), mean / std
    planes = np.empty((1, 3, *frame.shape[1:3]), np.float32)
    table = (np.arange(256, dtype=np.float32)[None] * factor[:, 0] - shift[:, 0]).astype(np.float32)

    def by_arithmetic() -> np.ndarray:
        np.multiply(frame[0, ..., :3].transpose(2, 0, 1), factor, out=planes[0])
        np.subtract(planes, shift, out=planes)
        return planes

    def by_table() -> np.ndarray:
        for channel in range(3):
            np.take(table[channel], frame[0, ..., channel], out=planes[0, channel], mode="clip")
        return planes

    def cost(way) -> float:  # noqa: ANN001
        times = []
        for _ in range(20):
            began = time.thread_time()
            way()
            times.append(time.thread_time() - began)
        return min(times)

    return min((by_arithmetic, by_table), key=cost)


if __name__ == "__main__":
    main()
