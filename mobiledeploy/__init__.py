"""Deploy a trained MobileNet to an ARM phone as one int8 network.

The public API, in pipeline order. Importing this package does not import torch: each name is loaded
on first use.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.2.0"

# without it, importing ONNX Runtime 1.32 writes an id of the machine into the user's cache folder
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from mobiledeploy.bench.measure import measure
    from mobiledeploy.export.write import export_executorch, export_onnx, export_tflite
    from mobiledeploy.graph.fold_batch_norm import fold
    from mobiledeploy.models.spec import ModelSpec
    from mobiledeploy.pipeline.build import build, load_images
    from mobiledeploy.pipeline.build_code import from_module
    from mobiledeploy.pipeline.check_parity import check_parity
    from mobiledeploy.pipeline.deploy import deploy
    from mobiledeploy.quantization.equalize import equalize
    from mobiledeploy.quantization.learned_equalization import learn_equalization
    from mobiledeploy.quantization.ptq import quantize
    from mobiledeploy.stages import QuantRecipe

_HOME = {
    "ModelSpec": "models.spec",
    "build": "pipeline.build",
    "from_module": "pipeline.build_code",
    "fold": "graph.fold_batch_norm",
    "load_images": "pipeline.build",
    "equalize": "quantization.equalize",
    "learn_equalization": "quantization.learned_equalization",
    "QuantRecipe": "stages",
    "quantize": "quantization.ptq",
    "export_onnx": "export.write",
    "export_executorch": "export.write",
    "export_tflite": "export.write",
    "check_parity": "pipeline.check_parity",
    "measure": "bench.measure",
    "deploy": "pipeline.deploy",
}

__all__ = [  # noqa: RUF022 - in pipeline order
    "ModelSpec",
    "build",
    "from_module",
    "fold",
    "load_images",
    "equalize",
    "learn_equalization",
    "QuantRecipe",
    "quantize",
    "export_onnx",
    "export_executorch",
    "export_tflite",
    "check_parity",
    "measure",
    "deploy",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mobiledeploy.utils.quiet import quietly

    with quietly():  # torchao and executorch warn while they are imported
        value = getattr(import_module(f"mobiledeploy.{_HOME[name]}"), name)
    globals()[name] = value
    return value
