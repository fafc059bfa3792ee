"""Ranges are judged by what they do to the logits."""

from dataclasses import replace

import networks
import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.graph.aten_graph import find_fused_ops, find_shared_encodings, trace
from mobiledeploy.graph.observers import observe
from mobiledeploy.network import CalibrationSet, Encoding
from mobiledeploy.quantization.encodings import encode, least_widths, narrowed, widest_ranges
from mobiledeploy.quantization.hutchinson import probe
from mobiledeploy.quantization.range_search import _error, search_factors

SIDE = 32


def graph_of(module):
    traced = trace(replace(networks.folded("v1", short=True), module=module.eval()))
    ops = find_fused_ops(traced)
    return traced, ops, find_shared_encodings(traced, ops)


def factors_of(module, images):
    """Return the factor chosen for every site, in order."""
    traced, ops, shared_encodings = graph_of(module)
    calibration = CalibrationSet(images=images, source="", sha256="")
    observed = observe(
        traced, [node for shared in shared_encodings for node in shared.nodes], calibration
    )
    widest = widest_ranges(shared_encodings, observed)

    def encodings(factors):
        return {name: encode(*r) for name, r in narrowed(widest, factors, {}).items()}

    return list(search_factors(traced, ops, shared_encodings, encodings, images).values())


class OneLoudChannel(nn.Module):
    """Channel 0 is a hundred times louder than channel 1; `read` says what the logits hear."""

    def __init__(self, read):
        super().__init__()
        self.first = nn.Conv2d(3, 2, 1)
        self.last = nn.Conv2d(2, 2, 1)
        with torch.no_grad():
            self.first.weight.copy_(torch.tensor([[100.0, 0, 0], [0, 1, 0]]).view(2, 3, 1, 1))
            self.first.bias.zero_()
            self.last.weight.copy_(torch.tensor([read, read]).view(2, 2, 1, 1))
            self.last.bias.zero_()

    def forward(self, x):
        return self.last(self.first(x)).flatten(1)


@pytest.mark.parametrize(
    ("read", "narrowed_to"), [([0.0, 1.0], 0.2), ([1.0, 0.0], 1.0)], ids=["quiet", "loud"]
)
def test_what_nobody_hears_may_be_clipped_and_what_they_hear_may_not(read, narrowed_to):
    images = np.random.default_rng(0).uniform(-1, 1, (4, 3, SIDE, SIDE)).astype(np.float32)
    _, first, last = factors_of(OneLoudChannel(read), images)
    assert first == narrowed_to
    assert last == 1.0  # clipped logits tie


def test_a_pad_is_no_judge_of_a_range_but_the_convolution_behind_it():
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 3)
    images = networks.pixels(SIDE, count=2)
    bare = factors_of(nn.Sequential(first, nn.ReLU(), last, nn.Flatten()), images)
    padded = factors_of(
        nn.Sequential(first, nn.ReLU(), nn.ZeroPad2d(0), last, nn.Flatten()), images
    )
    assert bare == padded


def test_an_addition_is_charged_for_what_it_clips_only():
    encoding = Encoding(scale=0.5, zero_point=0)
    value = torch.tensor([0.2, 100.0])
    assert _error(value, encoding, only_clips=True).tolist() == pytest.approx([0, -36.5])
    assert _error(value, encoding, only_clips=False).tolist() == pytest.approx([-0.2, -36.5])


def test_a_probe_foretells_how_far_an_error_moves_the_logits():
    traced, _, shared_encodings = graph_of(networks.folded("v2", short=True).module)
    images = torch.from_numpy(networks.pixels(SIDE, count=1))
    node = shared_encodings[3].nodes[0]
    (probed,) = probe(traced, [node], images, probes=400, seed=0)
    random = torch.Generator().manual_seed(1)
    error = 1e-4 * torch.randn(probed.value.shape, generator=random)

    class Disturbed(torch.fx.Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            return value + error if n is node else value

    with torch.no_grad():
        moved = Disturbed(traced).run(images) - traced(images)
    assert probed.cost(error) == pytest.approx(float(moved.square().sum()), rel=0.3)
    assert probed.cost(2 * error) == pytest.approx(4 * probed.cost(error))


def test_an_output_that_is_all_but_dead_keeps_a_width_that_xnnpack_accepts():
    traced, ops, shared_encodings = graph_of(OneLoudChannel([1.0, 0.0]))
    encodings = {
        node.name: encode(-1.0, 1.0) for shared in shared_encodings for node in shared.nodes
    }
    widths = least_widths(traced, ops, shared_encodings, encodings)
    name = ops[0].output.name
    (_, low_high), *_ = narrowed({name: (0.0, 1e-9)}, {name: 1.0}, widths).items()
    scale = encode(*low_high).scale
    requantization = encodings["x"].scale * 100 / 127 / scale
    assert 64 < requantization < 256
