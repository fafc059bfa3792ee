"""Latency, measured so that it can be believed."""

from mobiledeploy.bench.measure import measure
from mobiledeploy.bench.stats import Ratio, paired_ratio

__all__ = ["Ratio", "measure", "paired_ratio"]
