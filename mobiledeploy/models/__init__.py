"""Where MobileNets are built.

Input: `ModelSpec`. Output: `nn.Module`. Invariant: the same specification, the same network.
"""

from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.config import load_config, read_config
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.models.summary import LayerSummary, ModelSummary, published, summarize
from mobiledeploy.models.validate import validate

__all__ = [
    "LayerSummary",
    "ModelSummary",
    "create",
    "create_on_meta",
    "load_config",
    "published",
    "randomize_batch_norm",
    "read_config",
    "summarize",
    "validate",
]
