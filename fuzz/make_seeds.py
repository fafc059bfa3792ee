"""Write the seeds: one small valid file for each reader.

Run it again after a change of a format: `python -m fuzz.make_seeds`.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

import mobiledeploy
from fuzz.modules import ModuleOfSeeds, Tiny
from mobiledeploy.cli import app
from mobiledeploy.devices.agent import BOOTSTRAP, bundle
from mobiledeploy.devices.request import Request, request_files, request_message
from mobiledeploy.pipeline.evaluate import evaluate_artifacts

SEEDS = Path(__file__).with_name("seeds")
_CONFIG = """\
family: v2
width: 0.25
resolution: 32
num_classes: 10
in_channels: 3
weights: random
head: "dropout,linear:8,relu,linear:10"
architecture:
  rows: # t, c, n, s
    - [1, 16, 1, 1]
    - [6, 24, 2, 2]
"""
_GRID = """\
- model: [v2, v3-small]
  width: [0.25, 0.5]
  resolution: [96, 128x160]
  ptq: [fast, fp32]
- {model: v1, resolution: 128}
"""


def main() -> None:
    """Write all seeds."""
    SEEDS.mkdir(exist_ok=True)
    torch.manual_seed(0)
    _write_texts()
    _write_images()
    _write_checkpoints()
    _write_artifacts_and_results()


def _write_texts() -> None:
    (SEEDS / "config.yml").write_text(_CONFIG)
    (SEEDS / "grid.yml").write_text(_GRID)
    (SEEDS / "labels.txt").write_text("tench\ngoldfish\nöre\nhen\n")
    (SEEDS / "labels.csv").write_text("file,class_index\na.png,0\nb/c.png,3\nd.png,1\n")


def _write_images() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (3, 24, 24, 3), np.uint8)
    np.savez(SEEDS / "stored.npz", images=pixels, labels=np.arange(3))
    np.savez_compressed(SEEDS / "packed.npz", images=pixels, labels=np.arange(3))
    image = Image.fromarray(pixels[0])
    for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif", "ppm"):
        image.save(SEEDS / f"image.{suffix}")
    image.convert("P").save(SEEDS / "palette.png")
    with tarfile.open(SEEDS / "shard.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in (("a.png", (SEEDS / "image.png").read_bytes()), ("a.cls", b"2")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def _write_checkpoints() -> None:
    state = ModuleOfSeeds().state_dict()
    torch.save(state, SEEDS / "zip.pth")
    torch.save(
        {"model": state, "epoch": 3, "args": {"lr": 0.1}},
        SEEDS / "legacy.pth",
        _use_new_zipfile_serialization=False,
    )
    safetensors.torch.save_file(state, SEEDS / "state.safetensors", {"format": "pt"})


def _write_artifacts_and_results() -> None:
    calls = np.random.default_rng(1).integers(0, 256, (16, 32, 32, 3), np.uint8)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.savez(folder / "images.npz", images=calls, labels=np.arange(16) % 4)
        model = mobiledeploy.from_module(Tiny(), input_shape=(3, 32, 32), name="tiny")
        images = mobiledeploy.load_images(model, folder / "images.npz")
        done = mobiledeploy.deploy(
            model, formats=["onnx", "pte", "tflite"], calibration=images, out=folder
        )
        assert done.parity is not None
        (SEEDS / "parity.json").write_text(done.parity.model_dump_json(by_alias=True))
        paths = [artifact.path for artifact in done.artifacts]
        for path in paths:
            (SEEDS / f"tiny{path.suffix}").write_bytes(path.read_bytes())
        manifest = paths[0].with_name(paths[0].name + ".json")
        (SEEDS / "manifest.json").write_bytes(manifest.read_bytes())
        _run("bench", paths[0], paths[2], "--runs", "6", "--json", SEEDS / "bench.json")
        _write_counts()
        _write_messages(paths[0])
        counts = evaluate_artifacts(paths[:1], folder / "images.npz")
        (SEEDS / "evaluation.json").write_text(counts.model_dump_json(by_alias=True))


def _write_counts() -> None:
    """Write a document of `bench --count-instructions`, which needs QEMU."""
    timed = json.loads((SEEDS / "bench.json").read_text())
    count = {
        "artifact": "tiny.onnx",
        "artifact_sha256": "00" * 32,
        "runtime": "onnxruntime 1.32.0",
        "device": "exec:qemu-aarch64",
        "threads": 1,
        "warmup": 1,
        "instructions": [1_000_000, 1_000_010],
        "outputs": {"values": 8, "differing": 0, "sqnr_db": 80.0},
        "ratio_to_first": 1.0,
    }
    document = timed | {"kind": "mobiledeploy.bench.instructions", "measurements": [count]}
    (SEEDS / "counts.json").write_text(json.dumps(document))


def _run(*arguments: object) -> None:
    app([str(each) for each in arguments], standalone_mode=False)


def _write_messages(path: Path) -> None:
    """Record what the agent sends for each task."""
    for task in ("outputs", "bench"):
        request = Request(task=task, artifacts=(path,), inputs=(None,), rounds=4, warmup=1)
        files = request_files(request)
        header = json.dumps(request_message(request, files, limit_s=60)).encode()
        agent = bundle()
        sent = b"%d\n" % len(agent) + agent + header + b"\n" + b"".join(files.values())
        process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin
        assert process.stdout
        process.stdin.write(sent)
        process.stdin.flush()
        received = process.stdout.read()
        process.stdin.close()
        process.wait()
        _, _, *records = received.split(b"\x1e")  # the first is the description of this machine
        (SEEDS / f"{task}.messages").write_bytes(b"".join(b"\x1e" + each for each in records))


if __name__ == "__main__":
    main()
