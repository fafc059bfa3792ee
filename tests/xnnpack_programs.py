"""Run the programs of single operators that `bench.xnnpack_operators` cuts out of a `.pte`."""

from collections.abc import Sequence

import torch

from mobiledeploy.devices.agent.runtimes import executorch_bindings


def run_program(program: bytes, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the outputs of a `.pte` that is in memory."""
    loaded = executorch_bindings()._load_program_from_buffer(program)
    outputs: list[torch.Tensor] = loaded.load_method("forward")(tuple(inputs))
    return outputs
