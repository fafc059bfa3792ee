"""Artifacts of tiny networks, each written once per session; not to be written to by tests."""

import pytest
from networks import folded, quantized

from mobiledeploy.export.write import (
    artifact_name,
    export_executorch,
    export_onnx,
    export_tflite,
)


@pytest.fixture(scope="session")
def exported_to(tmp_path_factory):
    """Return a function: (format, family, resolution, short, precision, options) -> Artifact."""
    made = {}
    exporters = {"onnx": export_onnx, "pte": export_executorch, "tflite": export_tflite}

    def export(format_, family, resolution=32, *, short=True, precision="int8", **options):
        key = (format_, family, resolution, short, precision, *options.items())
        if key not in made:
            make = quantized if precision == "int8" else folded
            model = make(family, resolution, short=short, **options)
            path = tmp_path_factory.mktemp("made") / artifact_name(model, format_)
            made[key] = exporters[format_](model, path)
        return made[key]

    return export
