"""Take a trained MobileNet to an ARM phone without losing it on the way.

The public API, in pipeline order. Importing this package does not import torch: each name is loaded
when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mobiledeploy.types import ModelSpec

_HOME = {
    "ModelSpec": "mobiledeploy.types",
}

__all__ = ["ModelSpec", "__version__"]


def __getattr__(name: str) -> object:
    """Load a public name from its home module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
