"""Limiting torch, oneDNN and numpy to AVX2 gives the same network with and without AVX512."""

import json
import os
import subprocess
import sys

import pytest

from mobiledeploy.utils import cpu_isa

PRINT_CAPABILITIES = """
import json
import torch
from numpy._core._multiarray_umath import __cpu_features__ as numpys
print(json.dumps([torch.backends.cpu.get_cpu_capability(), numpys["X86_V4"]]))
"""
LIMIT = ("from mobiledeploy.utils.cpu_isa import limit_to_avx2", "limit_to_avx2()")


def capabilities(*before: str) -> list:
    """Return torch's CPU capability and whether numpy uses AVX512, in a new process."""
    names = cpu_isa.AVX2_LIMITS
    clean = {name: value for name, value in os.environ.items() if name not in names}
    process = subprocess.run(
        [sys.executable, "-c", "\n".join([*before, PRINT_CAPABILITIES])],
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(process.stdout.splitlines()[-1])


@pytest.mark.ci
def test_limited_libraries_do_not_use_avx512():
    torch_capability, numpy_uses_avx512 = capabilities(*LIMIT)
    assert "AVX512" not in torch_capability
    assert not numpy_uses_avx512


@pytest.mark.ci
def test_the_command_line_sets_the_limit_before_it_loads_the_libraries():
    """Variables that are set after the import have no effect."""
    command = (
        "import sys; sys.argv[1:] = ['--version']",
        "from mobiledeploy.__main__ import main",
        "try: main()",
        "except SystemExit: assert not {'torch', 'numpy'} & set(sys.modules)",
    )
    assert capabilities(*command) == capabilities(*LIMIT)


@pytest.mark.parametrize(("has_avx512", "expected"), [(True, "avx2"), (False, None)])
def test_only_processors_with_avx512_are_limited(monkeypatch, has_avx512, expected):
    """On a processor without AVX2 the limit would make torch use AVX2."""
    for name in cpu_isa.AVX2_LIMITS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cpu_isa, "_has_avx512", lambda: has_avx512)
    cpu_isa.limit_to_avx2()
    assert os.environ.get("ATEN_CPU_CAPABILITY") == expected
    for name in cpu_isa.AVX2_LIMITS:
        monkeypatch.delenv(name, raising=False)


def test_variables_that_are_already_set_are_kept(monkeypatch):
    for name in cpu_isa.AVX2_LIMITS:
        monkeypatch.setenv(name, "theirs")
    monkeypatch.setattr(cpu_isa, "_has_avx512", lambda: True)
    cpu_isa.limit_to_avx2()
    assert {os.environ[name] for name in cpu_isa.AVX2_LIMITS} == {"theirs"}
