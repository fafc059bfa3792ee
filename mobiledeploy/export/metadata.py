"""What an artifact says about itself, so that an app can use it without the manifest.

ONNX carries it in `metadata_props`, `.pte` in constant methods that return UTF-8 bytes:

    mobiledeploy.metadata / mobiledeploy_metadata    one JSON document (schema below)
    mobiledeploy.labels   / mobiledeploy_labels      class names, one a line, where they are known;
                                                     in `.pte` compressed with zlib
"""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

from mobiledeploy.types import INPUT_NAME, OUTPUT_NAME, FoldedModel, QuantizedModel

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = 1
METADATA = "metadata"
LABELS = "labels"


def describe(model: QuantizedModel | FoldedModel) -> dict[str, object]:
    """Return the JSON document that both formats carry."""
    spec, preprocessing = model.spec, model.preprocessing
    int8 = isinstance(model, QuantizedModel)
    kept = model.recipe.float_layers if isinstance(model, QuantizedModel) else ()
    document: dict[str, object] = {
        "schema": SCHEMA,
        "name": spec.name,
        "family": spec.family,
        "precision": "int8" if int8 else "fp32",
        "input": {
            "name": INPUT_NAME,
            "layout": "NCHW",
            "channels": spec.in_channels,
            "resize_short_side": round(spec.resolution / preprocessing.crop_pct),
            "center_crop": spec.resolution,
            "interpolation": preprocessing.interpolation,
            "mean": preprocessing.mean,
            "std": preprocessing.std,
        },
        "output": {"name": OUTPUT_NAME, "classes": spec.num_classes},
        "weights": {
            "source": model.provenance.source,
            "sha256": model.provenance.sha256,
        },
        "encodings_sha256": model.encodings_digest if isinstance(model, QuantizedModel) else "",
    }
    return document | ({"float_layers": list(kept)} if kept else {})


def for_onnx(model: QuantizedModel | FoldedModel) -> Mapping[str, str]:
    """Return the entries of `metadata_props`."""
    entries = {f"mobiledeploy.{METADATA}": json.dumps(describe(model))}
    if model.labels:
        entries[f"mobiledeploy.{LABELS}"] = "\n".join(model.labels)
    return entries


def for_executorch(model: QuantizedModel | FoldedModel) -> Mapping[str, bytes]:
    """Return the constant methods and the bytes that they return."""
    entries = {f"mobiledeploy_{METADATA}": json.dumps(describe(model)).encode()}
    if model.labels:
        entries[f"mobiledeploy_{LABELS}"] = zlib.compress("\n".join(model.labels).encode(), 9)
    return entries
