"""The network as an ExecuTorch program: one XNNPACK delegate and nothing outside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def lower(program: ExportedProgram) -> bytes:
    """Lower to XNNPACK."""
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return lowered.to_executorch().buffer
