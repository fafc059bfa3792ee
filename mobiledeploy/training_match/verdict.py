"""Does the built network see what it saw in training? The figure, and what differs if not.

Input: a float network with its statistics and images. Output: a `TrainingMatch`.

If the distance from the BatchNorm statistics is larger than images alone explain, every alternative
(see `alternatives`) is run on the same images. One that brings the distance down to what
training-like images give names what is wrong: the trained network made that assumption. Odd images
do not do this: measured on images of one class, of other cameras and of another data set, no
alternative lowered the distance below 0.2, while the right one lowered it to 0.08 to 0.16. It also
has to lower it by `_IMPROVEMENT`, so sound networks stay silent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mobiledeploy.stages import describe_images
from mobiledeploy.training_match.alternatives import Alternative, BuiltNetwork, alternatives
from mobiledeploy.training_match.distance import batch_norm_distance, has_statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from mobiledeploy.stages import CalibrationSet, FloatModel

    Images = NDArray[np.float32]

_IMAGES = 32  # of 224x224; as many pixels of smaller images
_MOST_IMAGES = 64
_FEWEST_IMAGES = 8  # of fewer the distance is chance
_LIKE_TRAINING = 0.16  # largest distance of 32 training-like images
_SOON = 16  # images that suffice where they already match: more images only match better
_TRIED_ON = 16  # images that every alternative is tried on
_EXPLAINED = 0.17  # largest distance of 32 images after the right alternative
_IMPROVEMENT = 0.7  # largest ratio of an alternative's distance to the network's own
_UNUSUAL = 0.6  # a distance that sound networks on odd images did not reach
_UNUSUAL_FIRST = 0.55  # the same of the first layer: 0.41 at most, 0.73 and more without the mean
_PLAINLY_ANOTHER = 1.0  # one that neither V2 at a third of its resolution reached
_RESOLUTION = "the resolution"
_NAMED = 2  # causes that a verdict names


@dataclass(frozen=True, slots=True)
class Cause:
    """An assumption that explains the distance.

    Attributes:
        name: What is probably wrong, for example "the normalisation".
        description: What fits better, for example "pixels in [0, 1]".
        remedy: How to try it.
        distance: The distance with it.
    """

    name: str
    description: str
    remedy: str
    distance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMatch:
    """How well a network and its images match the statistics of its training.

    Attributes:
        distance: The mean distance of its BatchNorms (see `distance`).
        first_layer: The distance of the first BatchNorm.
        last_layer: The distance of the last BatchNorm.
        images: Number of images that were run.
        source: Where the images came from.
        causes: Assumptions that explain the distance, the best first; empty if none does.
    """

    distance: float
    first_layer: float
    last_layer: float
    images: int
    source: str
    causes: tuple[Cause, ...] = ()

    @property
    def is_mismatch(self) -> bool:
        """Return whether the network is plainly not the trained one, or its input another."""
        return self.distance > _scaled(_PLAINLY_ANOTHER, self.images) or (
            bool(self.causes) and not self._is_of_another_resolution
        )

    @property
    def is_doubtful(self) -> bool:
        """Return whether the user should hear of it, although it is no mismatch."""
        unusual = self.distance > _scaled(_UNUSUAL, self.images) or self._differs_at_once
        return not self.is_mismatch and (unusual or bool(self.causes))

    @property
    def _differs_at_once(self) -> bool:
        """Return whether the images differ already behind the first convolution."""
        return self.first_layer > _scaled(_UNUSUAL_FIRST, self.images)

    @property
    def _is_of_another_resolution(self) -> bool:
        """Return whether nothing but the resolution differs, and not by much.

        Running a trained network on smaller or larger images is a choice, not a mistake.
        """
        others = {cause.name for cause in self.causes} - {_RESOLUTION}
        return not others and self.distance < _scaled(_UNUSUAL, self.images)

    def document(self) -> dict[str, object]:
        """Return the figures as manifests keep them."""
        return {
            "distance": self.distance,
            "first_layer": self.first_layer,
            "last_layer": self.last_layer,
            "images": self.images,
            "source": self.source,
            "mismatch": self.is_mismatch,
        }

    def explanation(self) -> str:
        """Return what was found, in one or two sentences."""
        found = (
            f"On {describe_images(self.images, self.source)}, the inputs of the BatchNorm layers"
            f" are {self.distance:.2f} away from their training statistics (training-like images:"
            f" about {_scaled(_LIKE_TRAINING, self.images):.2f})."
        )
        if not self.causes and self._differs_at_once:
            return (
                f"{found} They differ already behind the first convolution"
                f" ({self.first_layer:.2f}): usually the preprocessing is not that of the training."
            )
        if not self.causes:
            return (
                f"{found} No common mistake explains this: either the images are not of the kind"
                " that the network was trained on, or the network is not the one that was trained."
            )
        fits = " or ".join(
            f"with {cause.description} ({cause.distance:.2f})" for cause in self.causes
        )
        likely = list(dict.fromkeys(cause.name for cause in self.causes))
        return f"{found} They match {fits}. Probably {' or '.join(likely)} differs from training."

    def advice(self) -> str:
        """Return what the user can try, as a sentence."""
        if not self.causes:
            return "Check the images, --mean, --std and --resolution."
        tries = "; or ".join(cause.remedy for cause in self.causes)
        return f"{tries[0].upper()}{tries[1:]}."

    def remedy(self) -> str:
        """Return what the user can try instead of a refused network."""
        return f"{self.advice()} If the network is right as it is, pass --allow-mismatch."


def compare_with_training(
    model: FloatModel,
    images: CalibrationSet,
    *,
    published: Callable[[], nn.Module] | None = None,
    images_at: Callable[[int, int], Images] | None = None,
) -> TrainingMatch | None:
    """Compare what a network sees on images with what it saw in training.

    Args:
        model: With BatchNorm, from `build`.
        images: Images as the network takes them.
        published: See `BuiltNetwork`.
        images_at: See `BuiltNetwork`.

    Returns:
        The match; None if nothing was learned, nothing is remembered or there are fewer than eight
        images.
    """
    if model.info.has_random_weights or not has_statistics(model.module):
        return None
    if images.count < _FEWEST_IMAGES:
        return None
    built = BuiltNetwork(
        module=model.module,
        preprocessing=model.info.preprocessing,
        resolution=images.images.shape[-1],
        published=published,
        images_at=images_at,
    )
    count = min(_MOST_IMAGES, _IMAGES * max(1, 224**2 // built.resolution**2))
    some = images.spread(min(count, _SOON))
    distance = batch_norm_distance(model.module, some.images)
    if distance.mean > _LIKE_TRAINING and some.count < min(count, images.count):
        some = images.spread(count)
        distance = batch_norm_distance(model.module, some.images)
    causes: tuple[Cause, ...] = ()
    if distance.mean > _scaled(_LIKE_TRAINING, some.count):
        causes = _causes(built, some, distance.mean)
    layers = list(distance.layers.values())
    return TrainingMatch(
        distance=distance.mean,
        first_layer=layers[0],
        last_layer=layers[-1],
        images=some.count,
        source=images.source,
        causes=causes,
    )


def _causes(built: BuiltNetwork, images: CalibrationSet, own: float) -> tuple[Cause, ...]:
    """Return the alternatives that explain the distance, the best first.

    Each is tried on a few images, and on all of them if it explains the distance there.
    """
    few = images.spread(_TRIED_ON).images
    limit = min(_scaled(_EXPLAINED, images.count), _IMPROVEMENT * own)
    found = []
    for other in alternatives(built):
        if _distance(other, few) < _scaled(_EXPLAINED, len(few)):
            distance = _distance(other, images.images)
            if distance < limit:
                found.append(Cause(other.cause, other.description, other.remedy, distance))
    found.sort(key=lambda cause: cause.distance)
    return tuple(found[:_NAMED])


def _distance(other: Alternative, images: Images) -> float:
    return batch_norm_distance(other.module, other.inputs(images)).mean


def _scaled(limit: float, count: int) -> float:
    """Return a limit for 32 images as it is for `count`: the distance of few images is chance."""
    return limit * max(1.0, math.sqrt(_IMAGES / count))
