"""Choose ranges for what they do to the logits.

A range that is too narrow clips, one that is too wide rounds coarsely. Two steps:

1. *What would its readers choose?* Of all candidates [a low, a high], the one that disturbs the
outputs
   of the operators behind it least,

       argmin_a  sum_r  |r(fake_quantize_a(x)) - r(x)|^2 / |r(x)|^2

   over all tensors x that share the range and all readers r of each, behind r's own activation: an
   error that a ReLU6 clips away costs nothing.
2. *Should they be trusted?* What is locally best clips large activations, which in some networks
carry
   the decision. So all ranges are moved from the widest (t = 0) towards the readers' choice (t =
   1), a -> a**t, as far as lowers the error of the *logits*.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from mobiledeploy.progress import track

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch.fx import GraphModule, Node

    from mobiledeploy.graph import Site, Unit

_FACTORS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3)


_TRUSTS = (1.0, 0.5, 0.0)


def trusted_factors(
    factors: Mapping[str, float], loss: Callable[[Mapping[str, float]], float]
) -> dict[str, float]:
    """Return the factors, moved towards one as far as the logits ask for.

    Args:
        factors: The readers' choice, by site name.
        loss: Of the logits, if these factors were taken.
    """
    candidates = [{name: a**t for name, a in factors.items()} for t in _TRUSTS]
    tracked = track(candidates, "Weighing ranges by the logits", len(candidates))
    return min(tracked, key=loss)


def search_factors(
    traced: GraphModule,
    units: Sequence[Unit],
    sites: Sequence[Site],
    extremes: Mapping[str, tuple[float, float]],
    batches: Sequence[NDArray[np.float32]],
) -> dict[str, float]:
    """Return, by site name, the factor a by which its widest range should be narrowed.

    Args:
        traced: The float network.
        units: Of it.
        sites: Of it.
        extremes: (low, high) by site name: the widest range that calibration showed.
        batches: Images to judge on, (N, C, H, W) each.
    """
    judge = _Judge(traced, units, sites, extremes)
    with torch.no_grad():
        for batch in track(batches, "Choosing ranges", len(batches)):
            judge.run(torch.from_numpy(batch).to(memory_format=torch.channels_last))
    return {name: _FACTORS[int(np.argmin(errors))] for name, errors in judge.errors.items()}


class _Judge(torch.fx.Interpreter):
    """Runs the float graph; at each tensor, tries every candidate on every reader."""

    def __init__(
        self,
        traced: GraphModule,
        units: Sequence[Unit],
        sites: Sequence[Site],
        extremes: Mapping[str, tuple[float, float]],
    ) -> None:
        super().__init__(traced)
        self._site_of = {node: site for site in sites for node in site.nodes}
        self._extremes = extremes
        self._readers: dict[Node, list[Unit]] = defaultdict(list)
        for unit in units:
            for node in unit.activations if unit.kind != "pad" else ():  # its own readers judge
                self._readers[node].append(unit)
        self.errors = {site.name: np.zeros(len(_FACTORS)) for site in sites}

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if n in self._site_of:
            site = self._site_of[n]
            low, high = self._extremes[site.name]
            for reader in self._readers[n]:
                exact = self._read(reader, n, value)
                power = float(exact.square().sum()) + 1e-12
                for index, factor in enumerate(_FACTORS):
                    disturbed = self._read(reader, n, _rounded(value, factor * low, factor * high))
                    error = float((disturbed - exact).square().sum())
                    self.errors[site.name][index] += error / power
        return value

    def _read(self, reader: Unit, node: Node, value: torch.Tensor) -> torch.Tensor:
        """Return a reader's output if this operand had this value."""
        if reader.kind in {"add", "multiply", "reshape"}:
            return value
        args = [
            value if a is node else self._constant(a) if isinstance(a, torch.fx.Node) else a
            for a in reader.operator.args
        ]
        output: torch.Tensor = cast("Any", reader.operator.target)(*args)
        return output if reader.clamp is None else output.clamp(*reader.clamp)

    def _constant(self, node: Node) -> object:
        """Return the parameter that a node reads."""
        return self.fetch_attr(str(node.target))


def _rounded(value: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """Return the value as int8 with this range would have it."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, 1e-6) / 255
    zero_point = round(-128 - low / scale)
    return torch.fake_quantize_per_tensor_affine(value, scale, zero_point, -128, 127)
