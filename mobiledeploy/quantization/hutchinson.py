"""Hutchinson estimator: how far an error of one activation moves the logits.

Input: the float network and images. Output: one `Probe` per activation, which returns the cost
|J d|^2 of any error d of it, J being the Jacobian of the logits.
Maths: with v drawn from N(0, I), E[(v^T J d)^2] = |J d|^2, and v^T J, the gradient of v^T logits,
comes for all activations from one backward pass. A few passes price any number of errors, each by
an inner product with the gradients.
Sources: Hutchinson, "A stochastic estimator of the trace of the influence matrix for Laplacian
smoothing splines" (1990), for the trace of J^T J; |J d|^2 as the cost of quantization is the
Gauss-Newton form of Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization"
(2020), section 3.
Invariant: the error is signed, so clipping counts as the one-sided error that it is, and an error
that a later ReLU6 removes costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.graph.observers import Recorder
from mobiledeploy.utils.outputs import joined

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch.fx import GraphModule, Node


@dataclass(frozen=True, slots=True)
class Probe:
    """One activation on a batch of images, and the logits' dependence on it.

    Attributes:
        node: The node that computes it.
        value: (N, C, H, W) or (N, C).
        gradients: Gradient of v^T logits for each v, shaped like `value`.
    """

    node: Node
    value: torch.Tensor
    gradients: tuple[torch.Tensor, ...]

    def cost(self, error: torch.Tensor) -> float:
        """Return the estimated squared change of the logits, summed over the images.

        Args:
            error: Error of the activation, shaped like `value`.
        """
        products = [_inner_products(gradient, error) for gradient in self.gradients]
        return float(torch.stack(products).square().mean(0).sum())


def probe(
    traced: GraphModule, nodes: Sequence[Node], images: torch.Tensor, *, probes: int, seed: int
) -> Iterator[Probe]:
    """Yield a probe of every node.

    Args:
        traced: The float network.
        nodes: Nodes to probe; the logits must depend on each.
        images: (N, C, H, W).
        probes: Number of v to draw.
        seed: Seed of the draw.
    """
    recorder = Recorder(traced, nodes, keep=lambda value: value)
    with torch.enable_grad():
        logits = joined(recorder.run(images.clone().requires_grad_(True)))
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
    """Return each image's inner product of two tensors, (N,), without forming the products."""
    return cast("torch.Tensor", torch.linalg.vecdot(_flat_per_image(a), _flat_per_image(b)))


def _flat_per_image(tensor: torch.Tensor) -> torch.Tensor:
    """Return each image's elements as a vector, without a copy if the tensor is channels-last."""
    return tensor.movedim(1, -1).reshape(len(tensor), -1)
