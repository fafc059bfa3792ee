"""Count the logits in which other clients differ from the integer reference.

    python benchmarks/compatibility.py [--cache FOLDER] [--client NAME ...] [--networks v2 ...]

Exports int8 networks with random weights and runs them in every client, each in an environment of
its own that is installed from PyPI or npm into the cache. A client that cannot be installed or
rejects a file is a row that says why. The first run downloads several GB.
"""

from mobiledeploy.utils.cpu_isa import AVX2_LIMITS, limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobiledeploy.devices.agent.machine import products_saturate
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.stages import RECIPES, QuantizedModel
from mobiledeploy.utils.quiet import quietly

RUNNERS = Path(__file__).parent / "clients"
NETWORKS = ("v1", "v2", "v3-small")
IMAGES = 32
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
_TORCH = "torch==2.13.0"
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_TORCH_NEEDS = ("filelock", "fsspec", "jinja2", "networkx", "setuptools", "sympy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A program that runs an artifact.

    Attributes:
        name: Its name and version in the table.
        packages: What is installed into its environment: requirements of pip, or of npm. Without
            any, it runs in the environment of `python`.
        runner: The file in `clients` that runs it: MODEL INPUTS OUT and `arguments`.
        arguments: Further arguments of the runner.
        suffix: Format of the artifact.
        python: The interpreter of the environment.
    """

    name: str
    packages: tuple[str, ...]
    runner: str
    arguments: tuple[str, ...] = ()
    suffix: str = "onnx"
    python: str = sys.executable


def onnxruntime(version: str, *others: str, python: str = sys.executable) -> list[Client]:
    """Return one release of ONNX Runtime at each optimization level."""
    return [
        Client(
            name=f"onnxruntime {version}, {level.removeprefix('ORT_').removeprefix('ENABLE_')}",
            packages=(f"onnxruntime=={version}", *others),
            runner="onnxruntime_run.py",
            arguments=(level, *(["exact"] if products_saturate() else [])),
            python=python,
        )
        for level in LEVELS
    ]


def executorch(version: str) -> Client:
    """Return one release of ExecuTorch."""
    packages = (_TORCH, *_TORCH_NEEDS, f"executorch=={version}")
    return Client(
        name=f"executorch {version}", packages=packages, runner="executorch_run.py", suffix="pte"
    )


_NEWEST = ("onnxruntime==1.32.0", "onnx==1.23.2")
CLIENTS = (
    *onnxruntime("1.8.0", "numpy<1.24", "protobuf<4", python="python3.9"),
    *onnxruntime("1.15.1", "numpy<2"),
    *onnxruntime("1.23.2"),
    *onnxruntime("1.32.0"),
    *(
        Client(
            name=f"ORT format, {style} (onnxruntime 1.32.0)",
            packages=_NEWEST,
            runner="ort_format_run.py",
            arguments=(style,),
        )
        for style in ("Fixed", "Runtime")
    ),
    Client(
        name="onnxslim 0.1.98 (onnxruntime 1.32.0)",
        packages=("onnxslim==0.1.98", *_NEWEST),
        runner="slim_run.py",
    ),
    Client(
        name="onnx 1.23.2, reference evaluator (raised to opset 20)",
        packages=("onnx==1.23.2",),
        runner="onnx_reference_run.py",
    ),
    Client(name="OpenVINO 2026.4.1", packages=("openvino==2026.4.1",), runner="openvino_run.py"),
    Client(name="tract 0.23.9", packages=("tract==0.23.9", "numpy"), runner="tract_run.py"),
    Client(
        name="onnxruntime-web 1.30.0 (WebAssembly, Node)",
        packages=("onnxruntime-web@1.30.0",),
        runner="onnxruntime_web_run.mjs",
    ),
    Client(
        name="onnxruntime-web 1.30.0 (WebAssembly, headless Chromium)",
        packages=("onnxruntime-web@1.30.0",),
        runner="chromium_run.mjs",
    ),
    Client(
        name="onnxruntime-node 1.30.0",
        packages=("onnxruntime-node@1.30.0",),
        runner="onnxruntime_node_run.mjs",
    ),
    Client(
        name="TVM 0.27.0.post1",
        packages=("apache-tvm==0.27.0.post1", "onnx==1.23.2"),
        runner="tvm_run.py",
    ),
    *(
        Client(
            name=f"OpenCV 5.0.0.93, {engine}",
            packages=("opencv-python-headless==5.0.0.93",),
            runner="opencv_run.py",
            arguments=(engine,),
        )
        for engine in ("ENGINE_CLASSIC", "ENGINE_NEW")
    ),
    executorch("1.4.1"),
    executorch("1.5.1"),
    Client(
        name="LiteRT 2.3.0 (XNNPACK)",
        packages=("ai-edge-litert==2.3.0",),
        runner="litert_run.py",
        suffix="tflite",
    ),
)


class CannotRunError(Exception):
    """A client cannot be installed, or rejects the file; the text says why."""


def interpreter_of(client: Client, cache: Path) -> str:
    """Return the Python that has a client's packages."""
    return str(environment_of(client, cache) / "bin/python") if client.packages else client.python


def environment_of(client: Client, cache: Path) -> Path:
    """Return the folder with a client's packages; install them the first time.

    Raises:
        CannotRunError: they cannot be installed.
    """
    python = sys.version if client.python == sys.executable else client.python
    digest = hashlib.sha256(repr((python, client.packages)).encode()).hexdigest()[:12]
    folder = cache / digest
    if (folder / ".installed").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if client.runner.endswith(".mjs"):
        npm = ("npm", "install", "--silent", "--ignore-scripts")  # scripts fetch CUDA
        _call(*npm, "--prefix", str(folder), *client.packages)
    else:
        _call(client.python, "-m", "venv", str(folder))
        packages = list(client.packages)
        pip = (str(folder / "bin/python"), "-m", "pip", "install", "--quiet")
        if _TORCH in packages:  # the build without CUDA, which PyPI does not have
            packages.remove(_TORCH)
            _call(*pip, "--no-deps", _TORCH, "--extra-index-url", _TORCH_INDEX)
        _call(*pip, *packages)
    (folder / ".installed").touch()
    return folder


def run(client: Client, model: Path, images: np.ndarray, cache: Path) -> np.ndarray:
    """Return a client's logits, float32 (N, classes).

    Raises:
        CannotRunError: it cannot be installed, or rejects the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, out = Path(folder) / "inputs.npy", Path(folder) / "out.npy"
        np.save(inputs, images)
        words = (str(RUNNERS / client.runner), str(model.resolve()), str(inputs), str(out))
        if client.runner.endswith(".mjs"):
            _call("node", *words, *client.arguments, folder=environment_of(client, cache))
            return np.fromfile(out, np.float32).reshape(len(images), -1)
        _call(interpreter_of(client, cache), *words, *client.arguments)
        logits: np.ndarray = np.load(out)
        return logits


def _call(*words: str, folder: Path | None = None) -> None:
    """Run a command.

    Raises:
        CannotRunError: it is not installed, or fails.
    """
    # the clients may use the whole processor
    environment = {k: v for k, v in os.environ.items() if k not in AVX2_LIMITS}
    try:
        done = subprocess.run(
            words,
            check=False,
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
        )
    except FileNotFoundError as error:
        raise CannotRunError(f"{words[0]} is not installed") from error
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise CannotRunError(lines[-1][:160])


def compare(expected: np.ndarray, found: np.ndarray) -> str:
    """Return "0 of N", or how many logits differ and by how much."""
    differing = int((found != expected).sum())
    text = f"{differing:,} of {expected.size:,}"
    if not differing:
        return text
    noise = ((found.astype(np.float64) - expected) ** 2).mean()
    sqnr_db = 10 * np.log10((expected.astype(np.float64) ** 2).mean() / noise)
    return f"{text} ({sqnr_db:.1f} dB)"


def export(
    family: str, folder: Path, data: Path | None, count: int
) -> tuple[dict[str, Path], np.ndarray, np.ndarray]:
    """Export an int8 network; return its artifacts by suffix, images and the reference's logits."""
    model = build(family, weights="random")
    images = load_images(model, data, count)
    deployment = deploy(
        model,
        formats=("onnx", "pte", "tflite"),
        calibration=images,
        recipe=RECIPES["fast"],
        out=folder,
        parity=False,
    )
    network = deployment.model
    assert isinstance(network, QuantizedModel)
    expected = IntegerReference(network).run({"input": images.images})["logits"]
    paths = {artifact.path.suffix[1:]: artifact.path for artifact in deployment.artifacts}
    return paths, images.images, expected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/mobiledeploy-clients")
    parser.add_argument("--client", action="append", help="part of a name; can be repeated")
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--data", type=Path, help="a folder of images; default: the bundled ones")
    arguments = parser.parse_args()
    wanted = arguments.client or [""]
    clients = [client for client in CLIENTS if any(part in client.name for part in wanted)]
    with tempfile.TemporaryDirectory() as folder:
        networks = []
        for family in arguments.networks:
            with quietly():
                networks.append(
                    export(family, Path(folder) / family, arguments.data, arguments.images)
                )
        print("| client |", " | ".join(arguments.networks), "|")
        print("|---|" + "---|" * len(networks))
        for client in clients:
            cells = []
            for paths, images, expected in networks:
                try:
                    found = run(client, paths[client.suffix], images, arguments.cache)
                    cells.append(compare(expected, found))
                except CannotRunError as error:
                    cells.append(f"cannot run: {error}")
            print(f"| {client.name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
