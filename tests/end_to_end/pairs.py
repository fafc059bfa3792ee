"""Export one small network again and again: it is quantized and encoded once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import networks
import pytest

import mobiledeploy
from mobiledeploy.export import write
from mobiledeploy.pipeline import deploy as deployment
from mobiledeploy.pipeline.stages import run_stages
from mobiledeploy.stages import RECIPES

FORMATS = ("onnx", "tflite")


@contextmanager
def quick_export() -> Iterator[Callable[[Path], object]]:
    """Yield a function that exports to a folder: only what it writes is done each time."""
    images = networks.calibration(32, 16)
    network = mobiledeploy.build("v1", weights="random", width=0.25, resolution=32, num_classes=10)
    stages = run_stages(network, images, RECIPES["fast"])
    encoded = {}
    load_really = write.load

    def load(name):
        real = load_really(name)
        if ".export." not in name:
            return real

        def once(model):
            if name not in encoded:
                encoded[name] = real(model)
            return encoded[name]

        return once

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deployment, "run_stages", lambda *_: stages)
        for name in ("remember", "remember_tried"):  # the cache is no part of this
            patch.setattr(deployment, name, lambda *_: None, raising=False)
        patch.setattr(write, "load", load)
        yield lambda out: mobiledeploy.deploy(
            network, formats=FORMATS, calibration=images, out=out, parity=False
        )


def write_earlier(export: Callable[[Path], object], out: Path) -> None:
    """Export to a folder, and reverse the files, so that they differ from those of a new export."""
    export(out)
    for path in out.iterdir():
        path.write_bytes(path.read_bytes()[::-1])


def contents(folder: Path) -> dict[Path, bytes]:
    """Return the contents of all files by relative path."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}
