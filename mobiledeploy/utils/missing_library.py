"""The error for a library that is not installed, or cannot be imported."""

from __future__ import annotations

import sys

from mobiledeploy.errors import RuntimeFailedError


def missing_library(error: Exception) -> RuntimeFailedError | None:
    """Return the error to report if the import of another package failed."""
    if not isinstance(error, ImportError) or not error.name:
        return None
    package = error.name.partition(".")[0]
    if package == "mobiledeploy" or package in sys.stdlib_module_names:
        return None
    return RuntimeFailedError(
        f"Cannot import the library {package}: {error}.",
        remedy="Run `mobiledeploy doctor`, which says what to install.",
    )
