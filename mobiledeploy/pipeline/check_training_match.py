"""Check that a built network, with its images, is the one that was trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledeploy.errors import GateError
from mobiledeploy.models.build import create_on_meta
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec
from mobiledeploy.network import CUSTOM
from mobiledeploy.pipeline.build import load_images
from mobiledeploy.stages import EMBEDDED, describe_images
from mobiledeploy.training_match.verdict import compare_with_training
from mobiledeploy.utils.progress import warn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from mobiledeploy.stages import CalibrationSet, FloatModel
    from mobiledeploy.training_match.verdict import TrainingMatch


def check_training_match(
    model: FloatModel, images: CalibrationSet, *, allow_mismatch: bool = False
) -> TrainingMatch | None:
    """Compare a network's BatchNorm statistics with what it sees on images.

    Args:
        model: The network, from `build`.
        images: Images for it, from `load_images`.
        allow_mismatch: Whether to go on with a network that is plainly not the trained one.

    Returns:
        The figure for the manifest; None if the statistics or the images tell nothing.

    Raises:
        GateError: the network is plainly not the trained one, its images are of another kind, or
            they are all copies of one.
    """
    if not allow_mismatch and not model.info.has_random_weights:
        _require_different_images(images)

    def images_at(resolution: int, count: int) -> NDArray[np.float32]:
        size = replace(model.info.input, height=resolution, width=resolution)
        resized = replace(model, info=replace(model.info, input=size))
        source = None if images.source == EMBEDDED else Path(images.source)
        return load_images(resized, source, count, for_calibration=True).images

    published = None if model.info.architecture == CUSTOM else lambda: _as_published(model)
    is_square = model.info.input.height == model.info.input.width
    match = compare_with_training(
        model, images, published=published, images_at=images_at if is_square else None
    )
    if match is not None and match.is_mismatch and not allow_mismatch:
        raise GateError(match.explanation(), remedy=match.remedy())
    if match is not None and match.is_doubtful:
        warn(f"{match.explanation()} {match.advice()}")
    return match


def _require_different_images(images: CalibrationSet) -> None:
    """Raise GateError if all images are copies of one: whatever they show says nothing."""
    if images.count > 1 and (images.images == images.images[0]).all():
        raise GateError(
            f"All {describe_images(images.count, images.source)} are copies of one image:"
            " neither ranges nor accuracy can be judged on them.",
            remedy="Give different images, or pass --allow-mismatch.",
        )


def _as_published(model: FloatModel) -> nn.Module:
    """Return the network with its paper's strides and activations, without weights."""
    spec = ModelSpec.from_document(model.info.source)
    paper = ArchitectureOptions()
    options = replace(
        spec.architecture, rows=None, stem_stride=paper.stem_stride, activation=paper.activation
    )
    return create_on_meta(replace(spec, architecture=options))
