"""Latency, measured so that it can be believed; and instructions, counted."""

from mobiledeploy.bench.instructions import count_instructions
from mobiledeploy.bench.measure import measure
from mobiledeploy.bench.stats import Ratio, paired_ratio

__all__ = ["Ratio", "count_instructions", "measure", "paired_ratio"]
