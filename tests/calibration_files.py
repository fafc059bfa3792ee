"""Arrays, their files and digests, and other class counts, for the tests of calibration sets."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from mobiledeploy.network import NetworkInfo


def of_classes(info: NetworkInfo, count: int) -> NetworkInfo:
    return replace(info, outputs=(replace(info.outputs[0], size=count),))


def digest_of(contents: list[bytes]) -> str:
    lines = [hashlib.sha256(content).hexdigest() + "\n" for content in contents]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def write_npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def images(count=10, side=16, channels=3) -> np.ndarray:
    shape = (count, side, side, channels)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)
