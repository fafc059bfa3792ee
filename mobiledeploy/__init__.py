"""Take a trained MobileNet to an ARM phone without losing it on the way.

The public API, in pipeline order. Importing this package does not import torch: each name is loaded
when it is first used.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mobiledeploy.bench.measure import measure
    from mobiledeploy.check import check_parity
    from mobiledeploy.equalize import equalize
    from mobiledeploy.export import export_executorch, export_onnx
    from mobiledeploy.fold import fold
    from mobiledeploy.pipeline import build, deploy, load_images
    from mobiledeploy.quantize import learn_factors, quantize
    from mobiledeploy.types import ModelSpec, QuantRecipe

_HOME = {
    "ModelSpec": "mobiledeploy.types",
    "build": "mobiledeploy.pipeline",
    "fold": "mobiledeploy.fold",
    "load_images": "mobiledeploy.pipeline",
    "equalize": "mobiledeploy.equalize",
    "learn_factors": "mobiledeploy.quantize",
    "QuantRecipe": "mobiledeploy.types",
    "quantize": "mobiledeploy.quantize",
    "export_onnx": "mobiledeploy.export",
    "export_executorch": "mobiledeploy.export",
    "check_parity": "mobiledeploy.check",
    "measure": "mobiledeploy.bench",
    "deploy": "mobiledeploy.pipeline",
}

__all__ = [  # noqa: RUF022 - in pipeline order
    "ModelSpec",
    "build",
    "fold",
    "load_images",
    "equalize",
    "learn_factors",
    "QuantRecipe",
    "quantize",
    "export_onnx",
    "export_executorch",
    "check_parity",
    "measure",
    "deploy",
    "__version__",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """The package, in which `fold` is the function even after its module `fold` was imported.

    The import system binds every submodule in its package, also when another module imports it:
    after `build`, `mobiledeploy.fold` would be a module that cannot be called.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if name in _HOME and isinstance(value, ModuleType):
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
