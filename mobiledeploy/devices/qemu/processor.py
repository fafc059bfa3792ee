"""Which processor QEMU's user mode emulates: choose one that computes correctly, and describe it.

QEMU 7.2 computes wrong results with SME, the matrix extension of its processor `max`: an int8
`.pte` of MobileNetV2 returned 1,946 wrong logits of 2,000. QEMU 10 did not, and `max,sme=off` does
not. QEMU before 8.1 shows a program the /proc/cpuinfo of this machine, at which ONNX Runtime later
than 1.27 crashes.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.utils.files import cache_folder, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_WRONG_SME = ((7, 2), (10, 0))  # from, to: those between were not tried
_FLAGS = frozenset({"-strace", "-singlestep", "-one-insn-per-tb"})  # options without a value
# Name -> part number of ARM's processors. `max` has all instructions, and no number of its own that
# ONNX Runtime 1.32 knows: it crashes at QEMU's.
_PARTS = {
    "cortex-a35": 0xD04,
    "cortex-a53": 0xD03,
    "cortex-a55": 0xD05,
    "cortex-a57": 0xD07,
    "cortex-a72": 0xD08,
    "cortex-a76": 0xD0B,
    "neoverse-n1": 0xD0C,
    "max": 0xD0B,
}


def is_qemu(argv: Sequence[str]) -> bool:
    """Return whether a command starts QEMU's user mode for ARM64."""
    return Path(argv[0]).name.startswith("qemu-aarch64")


def names_program(argv: Sequence[str]) -> bool:
    """Return whether a QEMU command names the program to run, after QEMU's own options."""
    return len(argv) > _first_word(argv)


def with_safe_processor(argv: Sequence[str]) -> tuple[list[str], str]:
    """Return a QEMU command whose processor computes correctly, and a note if it was changed."""
    name = _processor(argv)
    first, fixed = _WRONG_SME
    version = _version(argv[0])
    if name.split(",")[0] != "max" or "sme=" in name or not first <= version < fixed:
        return list(argv), ""
    safe = f"{name},sme=off"
    note = (
        f"QEMU {version[0]}.{version[1]} computes wrong results with SME, so -cpu is {safe}, not"
        f" {name}."
    )
    options, rest = list(argv[1 : _first_word(argv)]), argv[_first_word(argv) :]
    if "-cpu" in options:
        options[options.index("-cpu") + 1] = safe
    else:
        options = ["-cpu", safe, *options]
    return [argv[0], *options, *rest], note


def sysroot(argv: Sequence[str]) -> Path:
    """Return a folder for QEMU's option -L, with the /proc/cpuinfo of the emulated processor.

    Raises:
        RuntimeFailedError: The cache cannot be written.
    """
    name = _processor(argv).split(",")[0]
    part = _PARTS.get(name, _PARTS["max"])
    text = (
        "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x0\nCPU part\t: {part:#05x}\nCPU revision\t: 0\n\n"
        f"Model\t: QEMU {name}\n"
    )
    folder = cache_folder() / "qemu" / name
    if not (folder / "proc/cpuinfo").is_file() or (folder / "proc/cpuinfo").read_text() != text:
        write_text(folder / "proc/cpuinfo", text)
    return folder


def _processor(argv: Sequence[str]) -> str:
    options = list(argv[1 : _first_word(argv)])
    if "-cpu" in options[:-1]:
        return options[options.index("-cpu") + 1]
    return os.environ.get("QEMU_CPU") or "max"


def _first_word(argv: Sequence[str]) -> int:
    """Return the index of the program in a QEMU command; its length if there is none."""
    at = 1
    while at < len(argv) and argv[at].startswith("-"):
        at += 1 if argv[at] in _FLAGS else 2
    return min(at, len(argv))


def _version(program: str) -> tuple[int, int]:
    """Return QEMU's version; (0, 0) if it does not print one, as when it cannot be run."""
    try:
        text = subprocess.run(  # noqa: S603 - an argv, no shell
            [program, "--version"], capture_output=True, text=True, check=False, timeout=20
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return 0, 0
    found = re.search(r"version (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)
