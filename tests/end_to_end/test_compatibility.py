"""Other clients compute the integer reference's logits: `benchmarks/compatibility.py`.

The clients that this environment has run here. CI installs the oldest ONNX Runtime and three small
clients, `pytest -m slow` the others.
"""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import pytest

from mobiledeploy.quantization.integer_reference import IntegerReference

PROGRAM = Path(__file__).parents[2] / "benchmarks/compatibility.py"
SPEC = importlib.util.spec_from_file_location("compatibility", PROGRAM)
compatibility = sys.modules["compatibility"] = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(compatibility)

IN_CI = ("onnxruntime 1.15.1", "onnxslim", "tract", "onnxruntime-web 1.30.0 (WebAssembly, Node)")
INSTALLED = ("onnxruntime 1.32.0", "ORT format", "onnx 1.23.2")
HERE = [replace(c, packages=()) for c in compatibility.CLIENTS if c.name.startswith(INSTALLED)]
DIFFERENT = {("OpenVINO 2026.4.1", "v3-small")} | {  # docs/results/compatibility.md
    (f"OpenCV 5.0.0.93, {engine}", family)
    for engine in ("ENGINE_CLASSIC", "ENGINE_NEW")
    for family in ("v1", "v2", "v3-small")
}
ELSEWHERE = [c for c in compatibility.CLIENTS if not c.name.startswith(INSTALLED)]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("clients")


def marked(client):
    mark = pytest.mark.ci if client.name.startswith(IN_CI) else pytest.mark.slow
    return pytest.param(client, marks=mark, id=client.name)


@pytest.mark.ci
@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
@pytest.mark.parametrize(
    "client", [*(pytest.param(c, id=c.name) for c in HERE), *map(marked, ELSEWHERE)]
)
def test_a_client_computes_the_reference_s_logits(client, family, exported_to, cache, request):
    if (client.name, family) in DIFFERENT:
        request.applymarker(pytest.mark.xfail(strict=True))
    images = networks.pixels(64, seed=1)
    reference = IntegerReference(networks.quantized(family, 64, short=True))
    expected = reference.run({"input": images})["logits"]
    artifact = exported_to(client.suffix, family, 64)
    found = compatibility.run(client, artifact.path, images, cache)
    assert compatibility.compare(expected, found) == f"0 of {expected.size}"


def test_a_client_that_rejects_the_file_says_why(cache, tmp_path):
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"not ONNX")
    with pytest.raises(compatibility.CannotRunError, match="InvalidProtobuf"):
        compatibility.run(HERE[0], damaged, np.zeros((1, 3, 64, 64), np.float32), cache)


def test_a_difference_is_counted_and_measured():
    expected, found = (np.array([[3, last]], np.float32) for last in (4, 4.5))
    assert compatibility.compare(expected, found) == "1 of 2 (20.0 dB)"
