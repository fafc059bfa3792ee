"""Ranges are judged by who computes with them."""

from dataclasses import replace

import networks
import numpy as np
import torch
from torch import nn

from mobiledeploy.graph import find_sites, find_units, trace
from mobiledeploy.observe import observe
from mobiledeploy.quantize.ranges import widest_ranges
from mobiledeploy.quantize.search import _Judge


def errors_of(module):
    """Return, by site, the error that each candidate causes in the operators behind it."""
    model = networks.folded("v1", short=True)
    traced = trace(replace(model, module=module.eval()))
    units = find_units(traced)
    sites = find_sites(traced, units)
    images = networks.calibration(32)
    observed = observe(traced, [node for site in sites for node in site.nodes], images)
    judge = _Judge(traced, units, sites, widest_ranges(sites, observed))
    with torch.no_grad():
        judge.run(torch.from_numpy(images.batches[0]))
    return list(judge.errors.values())


def test_a_pad_is_no_judge_of_a_range_but_the_convolution_behind_it():
    first, last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 3)
    bare = errors_of(nn.Sequential(first, nn.ReLU(), last))
    padded = errors_of(nn.Sequential(first, nn.ReLU(), nn.ZeroPad2d(0), last))
    assert bare[1].min() > 0
    np.testing.assert_array_equal(padded, bare)
