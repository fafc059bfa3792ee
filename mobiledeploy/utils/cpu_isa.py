"""Floats that come out the same with AVX512 and without.

torch, oneDNN and numpy choose their kernels by the processor. AVX512's add up in another order than
AVX2's, and a decision that hangs on a last bit (a range, the rounding of a weight) makes two
networks of one command. Told so before they are loaded, they compute everywhere as they would with
AVX2: same images, same integers. It costs no time that could be measured, and runtimes do not
mind. What MKL chooses by itself stays, Intel's processors or AMD's (decision record 0014).

What the environment says already is left alone.
"""

from __future__ import annotations

import os
from pathlib import Path

_AS_WITH_AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}


def limit_to_avx2() -> None:
    """Set what torch, oneDNN and numpy read when they are loaded: call it before."""
    if _has_avx512():
        for name, value in _AS_WITH_AVX2.items():
            os.environ.setdefault(name, value)


def _has_avx512() -> bool:
    try:
        return "avx512f" in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux
        return False
