"""Which ONNX Runtime is the oldest that loads a file.

ONNX Runtime refuses a file whose opset or IR version is newer than itself. The table was measured:
an int8 and a float network with each opset were loaded in the releases 1.7 to 1.14.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# opset: (IR version of the file, oldest release that loaded it)
_MEASURED = {14: (7, "1.8"), 15: (8, "1.9"), 16: (8, "1.11"), 17: (8, "1.12"), 18: (8, "1.14")}


def oldest_onnxruntime(opsets: Mapping[str, int], ir_version: int) -> str | None:
    """Return the oldest release of ONNX Runtime known to load these versions, such as "1.8".

    Args:
        opsets: Domain to version; "" is ONNX's own.
        ir_version: Version of the file's structure.

    Returns:
        None for versions, or operators of other domains, that were not measured.
    """
    measured_ir, release = _MEASURED.get(opsets.get("", 0), (0, None))
    return release if set(opsets) == {""} and ir_version <= measured_ir else None
