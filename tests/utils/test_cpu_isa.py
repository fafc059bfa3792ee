"""One command makes one network, whether the processor has AVX512 or not."""

import json
import os
import subprocess
import sys

import pytest

from mobiledeploy.utils import cpu_isa as kernels

REPORT = """
import json
import torch
from numpy._core._multiarray_umath import __cpu_features__ as numpys
print(json.dumps([torch.backends.cpu.get_cpu_capability(), numpys["X86_V4"]]))
"""


def computing(*before: str) -> list:
    """Return what torch computes with, and whether numpy has AVX512, in a new process."""
    names = kernels._AS_WITH_AVX2
    clean = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join([*before, REPORT])],
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_told_so_they_compute_without_avx512():
    told = computing("from mobiledeploy.utils.cpu_isa import compute_alike", "compute_alike()")
    assert "AVX512" not in told[0]
    assert not told[1]


def test_the_command_line_tells_them_before_it_loads_anything():
    """Told later, they would not listen."""
    command = (
        "import sys; sys.argv[1:] = ['--version']",
        "from mobiledeploy.__main__ import main",
        "try: main()",
        "except SystemExit: assert not {'torch', 'numpy'} & set(sys.modules)",
    )
    assert computing(*command) == computing(
        "from mobiledeploy.utils.cpu_isa import compute_alike", "compute_alike()"
    )


@pytest.mark.parametrize(("has", "expected"), [(True, "avx2"), (False, None)])
def test_a_processor_without_avx512_is_told_nothing(monkeypatch, has, expected):
    """torch would use AVX2 on one that has none, if told so."""
    for name in kernels._AS_WITH_AVX2:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(kernels, "_has_avx512", lambda: has)
    kernels.limit_to_avx2()
    assert os.environ.get("ATEN_CPU_CAPABILITY") == expected
    for name in kernels._AS_WITH_AVX2:
        monkeypatch.delenv(name, raising=False)


def test_what_somebody_has_set_stays(monkeypatch):
    for name in kernels._AS_WITH_AVX2:
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setattr(kernels, "_has_avx512", lambda: True)
    kernels.limit_to_avx2()
    assert {os.environ[name] for name in kernels._AS_WITH_AVX2} == {"theirs"}
