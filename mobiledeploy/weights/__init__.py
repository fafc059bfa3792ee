"""Where checkpoints come from, and which dialect they speak."""

from mobiledeploy.weights.cache import cache_folder, cached
from mobiledeploy.weights.inspect import CheckpointInfo, complete_spec, inspect_checkpoint
from mobiledeploy.weights.load import load_weights
from mobiledeploy.weights.resolve import Resolution, resolve

__all__ = [
    "CheckpointInfo",
    "Resolution",
    "cache_folder",
    "cached",
    "complete_spec",
    "inspect_checkpoint",
    "load_weights",
    "resolve",
]
