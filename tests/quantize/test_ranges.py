"""What was seen becomes ranges."""

import networks
import pytest

from mobiledeploy.graph import find_sites, find_units, trace
from mobiledeploy.observe import observe
from mobiledeploy.quantize.ranges import widest_ranges


@pytest.mark.parametrize(("count", "room"), [(4, 2.5), (9, 2.0)])
def test_logits_have_room_for_images_not_seen_the_more_the_fewer_were_seen(count, room):
    traced = trace(networks.equalized("v2"))
    sites = find_sites(traced, find_units(traced))
    nodes = [node for site in sites for node in site.nodes]
    observed = observe(traced, nodes, networks.calibration(32, count))
    (logits,) = sites[-1].nodes
    low, high = widest_ranges(sites, observed)[sites[-1].name]
    assert low == pytest.approx(room * observed[logits.name].minima.min())
    assert high == pytest.approx(room * observed[logits.name].maxima.max())
