"""Manifests of networks that do not exist: complete documents, parts of which can be replaced."""

import json

from mobiledeploy.artifact.manifest_schema import ManifestDocument

DOCUMENT = {
    "schema": 2,
    "artifact": {"file": "int8.onnx", "format": "onnx", "sha256": "00" * 32, "size_bytes": 1000},
    "spec": {"family": "v2", "num_classes": 10, "weights": "own.pth"},
    "precision": "int8",
    "weights": {"source": "file", "origin": "own.pth", "sha256": "11" * 32, "dialect": "timm"},
    "preprocessing": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    "labels": [],
    "tool_versions": {"torch": "2.13.0"},
    "calibration": {"source": "photos", "count": 8, "sha256": "22" * 32},
    "recipe": {"range_rule": "searched"},
    "encodings_sha256": "33" * 32,
    "encodings": {"x": {"scale": 0.5, "zero_point": -128}},
}


def document(**changes):
    """Return the JSON document of a manifest; a mapping replaces only the fields that it has."""
    merged = dict(DOCUMENT)
    for name, value in changes.items():
        known = DOCUMENT.get(name)
        both = isinstance(known, dict) and isinstance(value, dict) and name != "encodings"
        merged[name] = known | value if both else value
    return merged


def manifest(**changes):
    """Return a manifest as the code that reads one gets it."""
    return ManifestDocument.model_validate_json(json.dumps(document(**changes)))
