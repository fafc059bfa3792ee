"""Every activation has one shared encoding."""

import networks
import pytest
import torch
from networks import FAMILIES
from own_networks import Convolution
from torch import nn

from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.graph.shared_encodings import connected_components, find_shared_encodings

EVERY_FAMILY = pytest.mark.parametrize("family", FAMILIES)


def test_a_relu_whose_input_is_read_by_others_clamps_in_the_same_encoding():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = self.conv(x)
            return y + torch.relu(y)

    traced = trace(networks.model_of(Twice(), 8))
    ops = find_fused_ops(traced)
    assert [op.kind for op in ops] == ["convolution", "clamp", "add"]
    _, stream = find_shared_encodings(traced, ops)
    assert len(stream.nodes) == 3


def test_all_tensors_of_a_residual_stream_share_one_encoding():
    traced = trace(networks.folded("v2"))
    ops = find_fused_ops(traced)
    shared_encodings = find_shared_encodings(traced, ops)
    shared_encoding_of = {node: shared for shared in shared_encodings for node in shared.nodes}
    adds = [op for op in ops if op.kind == "add"]
    assert len(adds) == 11
    for op in adds:
        one, other = op.activations
        assert shared_encoding_of[one] is shared_encoding_of[other] is shared_encoding_of[op.output]
    # The stages of 24, 32, 64, 96 and 160 channels have 2, 3, 4, 3 and 3 blocks, and one addition
    # less. At this width the first block keeps the stem's 8 channels, so it has an addition, too.
    streams = {
        id(shared_encoding_of[op.output]): len(shared_encoding_of[op.output].nodes) for op in adds
    }
    assert sorted(streams.values()) == [2 + 1, 2 + 1, 3 + 2, 3 + 2, 3 + 2, 4 + 3]


@pytest.mark.parametrize("pad", [nn.ZeroPad2d((0, 1, 0, 1)), nn.ConstantPad2d((0, 1, 0, 1), 0.0)])
def test_padding_shares_its_inputs_encoding_and_keeps_its_bounds(pad):
    traced = trace(
        networks.model_of(Convolution(nn.Sequential(nn.ReLU6(), pad, nn.Conv2d(4, 2, 3))), 8)
    )
    ops = find_fused_ops(traced)
    assert [op.kind for op in ops] == ["convolution", "pad", "convolution"]
    image, padded, output = find_shared_encodings(traced, ops)
    assert padded.nodes == (ops[0].output, ops[1].output)
    assert padded.clamp == (0.0, 6.0)
    assert image.clamp == output.clamp == (-float("inf"), float("inf"))


@EVERY_FAMILY
def test_every_activation_has_exactly_one_shared_encoding(family):
    traced = trace(networks.folded(family))
    ops = find_fused_ops(traced)
    nodes = [node for shared in find_shared_encodings(traced, ops) for node in shared.nodes]
    assert len(nodes) == len(set(nodes))
    outputs = {op.output for op in ops}
    assert set(nodes) == outputs | set(traced.graph.find_nodes(op="placeholder"))


def test_components_keep_the_order_in_which_they_are_joined():
    nodes = list("abcdef")
    found = connected_components(nodes, [("d", "b"), ("e",), ("a", "d"), ("f", "f")])
    assert found == [("a", "d", "b"), ("c",), ("e",), ("f",)]
