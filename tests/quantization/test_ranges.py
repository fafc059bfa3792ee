"""What was seen becomes ranges."""

import networks
import pytest

from mobiledeploy.graph.aten_graph import find_fused_ops, find_shared_encodings, trace
from mobiledeploy.graph.observers import observe
from mobiledeploy.quantization.encodings import widest_ranges


@pytest.mark.parametrize(("count", "room"), [(4, 2.5), (9, 2.0)])
def test_logits_have_room_for_images_not_seen_the_more_the_fewer_were_seen(count, room):
    traced = trace(networks.equalized("v2"))
    shared_encodings = find_shared_encodings(traced, find_fused_ops(traced))
    nodes = [node for shared in shared_encodings for node in shared.nodes]
    observed = observe(traced, nodes, networks.calibration(32, count))
    (logits,) = shared_encodings[-1].nodes
    low, high = widest_ranges(shared_encodings, observed)[shared_encodings[-1].name]
    assert low == pytest.approx(room * observed[logits.name].minima.min())
    assert high == pytest.approx(room * observed[logits.name].maxima.max())
