"""A probe predicts how far an error of an activation moves the logits."""

import networks
import pytest
import torch

from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.graph.shared_encodings import find_shared_encodings
from mobiledeploy.quantization.hutchinson import probe


def test_the_cost_of_an_error_is_the_squared_change_of_the_logits():
    traced = trace(networks.folded("v2", short=True))
    node = find_shared_encodings(traced, find_fused_ops(traced))[3].nodes[0]
    images = torch.from_numpy(networks.pixels(32, count=1))
    (probed,) = probe(traced, [node], images, probes=400, seed=0)
    random = torch.Generator().manual_seed(1)
    error = 1e-4 * torch.randn(probed.value.shape, generator=random)

    class Disturbed(torch.fx.Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            return value + error if n is node else value

    with torch.no_grad():
        change = Disturbed(traced).run(images) - traced(images)
    assert probed.cost(error) == pytest.approx(float(change.square().sum()), rel=0.3)
    assert probed.cost(2 * error) == pytest.approx(4 * probed.cost(error))
