"""Run the programs of single operators that `bench.xnnpack_operators` cuts out of a `.pte`."""

from collections.abc import Sequence

import torch
from executorch.extension.pybindings import _portable_lib


def run_program(program: bytes, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the outputs of a `.pte` that is in memory."""
    loaded = _portable_lib._load_program_from_buffer(program)
    outputs: list[torch.Tensor] = loaded.load_method("forward")(tuple(inputs))
    return outputs
