"""Compare two artifacts, and each with the float network of its manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mobiledeploy.diff.compare import compare_artifacts

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from mobiledeploy.artifact.manifest import Manifest
    from mobiledeploy.diff.types import Difference


def diff(a: Path, b: Path, data: Path | None = None, samples: int | None = None) -> Difference:
    """Compare two artifacts, each given as the file or as its manifest.

    Args:
        a: The reference.
        b: The candidate.
        data: Images to run both on, a folder or an `.npz`; None compares no outputs.
        samples: Number of images; None for all.

    Raises:
        ArtifactError: an artifact or manifest is missing or damaged, or the two do not belong
            together.
        DataError: there are no images.
    """
    return compare_artifacts(a, b, data, samples, float_module=_float_module)


def _float_module(manifest: Manifest) -> nn.Module:
    # torch is loaded only where outputs are compared
    from mobiledeploy.pipeline.rebuild import find_checkpoint, rebuild_float  # noqa: PLC0415

    return rebuild_float(manifest, find_checkpoint(manifest)).module
