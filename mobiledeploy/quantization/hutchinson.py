"""What an error in one activation does to the logits, without running the network for it.

For a small error d of a tensor, the logits move by J d, J being their Jacobian. With v drawn from
N(0, I) over the logits,

    E[(v^T J d)^2] = |J d|^2

and v^T J, the gradient of v^T logits, comes for *all* tensors out of one backward pass. So a few
passes tell, for any number of candidate errors, what each would cost: the inner product of the
error and the gradient, squared. Clipping is judged as the one-sided error that it is, and what a
later ReLU6 throws away costs nothing.

Source: the estimator is Hutchinson's ("A stochastic estimator of the trace of the influence
matrix", 1990) for the trace of J^T J; |J d|^2 as the price of quantization is the Gauss-Newton form
of Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization" (2020), section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.graph.observers import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch.fx import GraphModule, Node


@dataclass(frozen=True, slots=True)
class Probe:
    """One tensor of a few images, and how the logits depend on it.

    Attributes:
        value: (N, C, H, W) or (N, C).
        gradients: Of v^T logits, one per v; each shaped like `value`.
    """

    node: Node
    value: torch.Tensor
    gradients: tuple[torch.Tensor, ...]

    def cost(self, error: torch.Tensor) -> float:
        """Return the squared distance that the logits move by if the tensor has this error.

        Summed over the images.
        """
        products = [_inner_products(gradient, error) for gradient in self.gradients]
        return float(torch.stack(products).square().mean(0).sum())


def probe(
    traced: GraphModule, nodes: Sequence[Node], images: torch.Tensor, *, probes: int, seed: int
) -> Iterator[Probe]:
    """Yield every node's probe.

    Args:
        traced: The float network.
        nodes: Whose values to probe; each must reach the logits.
        images: (N, C, H, W).
        probes: How many v to draw.
        seed: Of the draw.
    """
    recorder = Recorder(traced, nodes, keep=lambda value: value)
    with torch.enable_grad():
        logits = recorder.run(images.clone().requires_grad_(True))
    values = [recorder.records[node] for node in nodes]
    random = torch.Generator().manual_seed(seed)
    gradients = [
        torch.autograd.grad(
            logits, values, torch.randn(logits.shape, generator=random), retain_graph=True
        )
        for _ in range(probes)
    ]
    for node, value, *of_node in zip(nodes, values, *gradients, strict=True):
        yield Probe(node, value.detach(), tuple(of_node))


def _inner_products(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return each image's sum of products, (N,), without forming the products."""
    return cast("torch.Tensor", torch.linalg.vecdot(_in_memory_order(a), _in_memory_order(b)))


def _in_memory_order(tensor: torch.Tensor) -> torch.Tensor:
    """Return each image's elements as a vector: without a copy where channels come last."""
    return tensor.movedim(1, -1).reshape(len(tensor), -1)
