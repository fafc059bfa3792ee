"""Limit torch, oneDNN and numpy to AVX2, so that AVX512 does not change their results.

The three libraries choose their kernels by the processor. AVX512 kernels add floats in another
order than AVX2 kernels, and a choice that depends on the last bit (a range, the rounding of a
weight) would build two networks from one command. Limited to AVX2, they compute the same
everywhere: same images, same integers. No slowdown could be measured, and the runtimes' own kernels
are not affected. What MKL chooses by processor vendor is not covered (decision record 0014).

Variables that are already set in the environment are kept.
"""

from __future__ import annotations

import os
from pathlib import Path

AVX2_LIMITS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}


def limit_to_avx2() -> None:
    """Set the variables that torch, oneDNN and numpy read at import. Call it before they load."""
    if _has_avx512():
        for name, value in AVX2_LIMITS.items():
            os.environ.setdefault(name, value)


def _has_avx512() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
