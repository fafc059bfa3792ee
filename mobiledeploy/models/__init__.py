"""Where MobileNets are built.

Input: `ModelSpec`. Output: `nn.Module`. Invariant: the same specification, the same network.
"""

from mobiledeploy.models.build import create
from mobiledeploy.models.initialize import randomize_batch_norm

__all__ = ["create", "randomize_batch_norm"]
