"""Read artifacts as the commands do."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from mobiledeploy.cli import app
from mobiledeploy.runtimes.open import open_runner

if TYPE_CHECKING:
    from pathlib import Path


def read_artifact(path: Path) -> None:
    """Inspect an artifact and run it once."""
    with open_runner(path) as runner:
        shape = (runner.batch_size or 1, *cast("tuple[int, ...]", runner.input_shape))
        runner.run({"input": np.zeros(shape, runner.input_type)})
    app(["inspect", str(path)], standalone_mode=False)
