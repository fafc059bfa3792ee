"""Manifests from a node name the paths of the machine that started the sweep."""

import json
from pathlib import Path

from mobiledeploy.sweep.moved_paths import back_to_driver


def test_paths_of_inputs_are_those_of_the_driver():
    manifest = {
        "calibration": {
            "source": "/cache/ab/images.npz",
            "from_manifest": "../../cache/ab/images.npz",
        },
        "weights": {"origin": "/cache/cd/été.pth", "notes": ["Read /cache/cd/été.pth."]},
    }
    files = {"a.onnx": b"/cache/ab/images.npz", "a.onnx.json": json.dumps(manifest).encode()}
    inputs = {"/cache/ab/images.npz": "data/images.npz", "/cache/cd/été.pth": "/home/été.pth"}
    found = back_to_driver(files, inputs, Path("/tmp/out"), Path("sweep/v2"))
    assert found["a.onnx"] == files["a.onnx"]
    assert json.loads(found["a.onnx.json"]) == {
        "calibration": {"source": "data/images.npz", "from_manifest": "../../data/images.npz"},
        "weights": {"origin": "/home/été.pth", "notes": ["Read /cache/cd/été.pth."]},
    }
