"""The network as quantized, in float arithmetic: fast, and close to the integers.

    x_q = s (clamp(round(x / s) + z, -128, 127) - z)    wherever an int8 unit reads or writes

In: the float network, encodings, rounded parameters, and which units compute in float. Out: logits,
or any activation. What `reference` defines exactly is approximated here by adding up in float32:
codes next to half-way may come out one apart. Good for choosing, not for checking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from mobiledeploy.quantize.codes import on_codes

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch.fx import GraphModule, Node

    from mobiledeploy.graph import Unit
    from mobiledeploy.quantize.in_sequence import Rounded
    from mobiledeploy.types import Encoding


class Simulation(torch.fx.Interpreter):
    """Runs the network with some units in int8 and the others in float.

    Args:
        traced: The float network.
        units: Of it.
        encodings: By node name.
        rounded: Parameters of the int8 layers, by the name of the unit's operator.
        floating: Names of the operators of the units that compute in float.
        keep: Hold every node's value, for `values`; else each is freed after its last use.
    """

    def __init__(
        self,
        traced: GraphModule,
        units: Sequence[Unit],
        encodings: Mapping[str, Encoding],
        rounded: Mapping[str, Rounded],
        floating: Collection[str] = (),
        *,
        keep: bool = False,
    ) -> None:
        super().__init__(traced, garbage_collect_values=not keep)
        self._encodings = encodings
        self._rounded = rounded
        self._integer = {u.operator: u for u in units if u.operator.name not in floating}
        self._written = {unit.output for unit in self._integer.values()}

    def values(
        self, images: torch.Tensor, known: Mapping[Node, torch.Tensor] | None = None
    ) -> dict[Node, torch.Tensor]:
        """Return every node's value for (N, C, H, W).

        Args:
            images: The input.
            known: Values of nodes that need not be computed again.
        """
        self.run(images, initial_env=dict(known or {}))
        return cast("dict[Node, torch.Tensor]", dict(self.env))

    def start(self, images: torch.Tensor) -> None:
        """Be ready to `advance` through the graph, node by node."""
        self.env = {}
        self.args_iter = iter([images])

    def advance(self, n: Node, raw: torch.Tensor | None = None) -> None:
        """Compute a node's value, all before it being known; free what nobody reads any more.

        Args:
            n: The node.
            raw: What its operator gives, if that is known.
        """
        self.env[n] = self.run_node(n) if raw is None else self._as_written(n, raw)
        for done in self.user_to_last_uses.get(n, ()):
            del self.env[done]

    def run_node(self, n: Node) -> Any:
        """Return a node's value; behind an int8 unit, what its code stands for."""
        value = super().run_node(n) if n not in self._integer else self._integer_unit(n)
        return self._as_written(n, value)

    def _as_written(self, n: Node, value: Any) -> Any:
        return self._coded(n, value) if n in self._written else value

    def _integer_unit(self, n: Node) -> Any:
        """Run an int8 unit's operator, on codes."""
        operands = self.operands(n)
        if self._integer[n].has_weight:
            rounded = self.parameters(n, operands)
            operands[1:3] = [rounded.weight, rounded.bias]
        return cast("Any", n.target)(*operands, **n.kwargs)

    def operands(self, n: Node) -> list[Any]:
        """Return what an int8 unit's operator is given: activations on their codes, the rest."""
        args, _ = self.fetch_args_kwargs_from_env(n)
        operands = list(args)
        for position, node in enumerate(self._integer[n].activations):
            if node not in self._written:
                operands[position] = self._coded(node, operands[position])
        return operands

    def parameters(self, n: Node, operands: Sequence[Any]) -> Rounded:  # noqa: ARG002
        """Return an int8 layer's parameters, given (input, float weight, float bias, ...)."""
        return self._rounded[n.name]

    def _coded(self, node: Node, value: torch.Tensor) -> torch.Tensor:
        return on_codes(value, self._encodings[node.name])
