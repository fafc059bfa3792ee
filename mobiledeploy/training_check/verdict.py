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

from mobiledeploy.network import describe_images
from mobiledeploy.training_check.alternatives import Alternative, alternatives
from mobiledeploy.training_check.distance import batch_norm_distance, has_statistics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import nn

    from mobiledeploy.network import CalibrationSet, FloatModel

    Images = NDArray[np.float32]

_IMAGES = 32  # of 224x224; as many pixels of smaller images
_MOST_IMAGES = 64
_FEWEST_IMAGES = 8  # of fewer the distance is chance
_LIKE_TRAINING = 0.16  # largest distance of 32 training-like images
_TRIED_ON = 16  # images that every alternative is tried on
_EXPLAINED = 0.17  # largest distance of 32 images after the right alternative
_IMPROVEMENT = 0.7  # largest ratio of an alternative's distance to the network's own
_PLAINLY_ANOTHER = 1.0  # a distance that no sound network and images had
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
        return bool(self.causes) or self.distance > _scaled(_PLAINLY_ANOTHER, self.images)

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

    def remedy(self) -> str:
        """Return what the user can try."""
        if not self.causes:
            return "Check the images, --mean, --std and --resolution, or pass --allow-mismatch."
        tries = "; or ".join(cause.remedy for cause in self.causes)
        return f"{tries}. If the network is right as it is, pass --allow-mismatch."


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
        published: Returns the architecture as published, on any device (see `alternatives`).
        images_at: Maps a resolution and a count to that many of the images, evenly spread.

    Returns:
        The match; None if nothing was learned, nothing is remembered or there are fewer than eight
        images.
    """
    if model.info.has_random_weights or not has_statistics(model.module):
        return None
    if images.count < _FEWEST_IMAGES:
        return None
    side = images.images.shape[-1]
    count = min(_MOST_IMAGES, _IMAGES * max(1, 224**2 // side**2))
    some = images.spread(count)
    distance = batch_norm_distance(model.module, some.images)
    causes: tuple[Cause, ...] = ()
    if distance.mean > _scaled(_LIKE_TRAINING, some.count):
        causes = _causes(model, some, distance.mean, published, images_at)
    layers = list(distance.layers.values())
    return TrainingMatch(
        distance=distance.mean,
        first_layer=layers[0],
        last_layer=layers[-1],
        images=some.count,
        source=images.source,
        causes=causes,
    )


def _causes(
    model: FloatModel,
    images: CalibrationSet,
    own: float,
    published: Callable[[], nn.Module] | None,
    images_at: Callable[[int, int], Images] | None,
) -> tuple[Cause, ...]:
    """Return the alternatives that explain the distance, the best first.

    Each is tried on a few images, and on all of them if it explains the distance there.
    """
    found = []
    for description in _explaining(model, images.spread(_TRIED_ON).images, published, images_at):
        for other in _alternatives(model, images.images, published, images_at):
            if other.description == description:
                distance = batch_norm_distance(other.module, other.images).mean
                if distance < min(_scaled(_EXPLAINED, images.count), _IMPROVEMENT * own):
                    found.append(Cause(other.cause, description, other.remedy, distance))
    found.sort(key=lambda cause: cause.distance)
    return tuple(found[:_NAMED])


def _explaining(
    model: FloatModel,
    images: Images,
    published: Callable[[], nn.Module] | None,
    images_at: Callable[[int, int], Images] | None,
) -> list[str]:
    """Return the descriptions of the alternatives that explain the distance of a few images."""
    limit = _scaled(_EXPLAINED, len(images))
    return [
        other.description
        for other in _alternatives(model, images, published, images_at)
        if batch_norm_distance(other.module, other.images).mean < limit
    ]


def _alternatives(
    model: FloatModel,
    images: Images,
    published: Callable[[], nn.Module] | None,
    images_at: Callable[[int, int], Images] | None,
) -> Iterator[Alternative]:
    return alternatives(
        model.module,
        images,
        model.info.preprocessing,
        published=None if published is None else published(),
        images_at=None if images_at is None else lambda side: images_at(side, len(images)),
    )


def _scaled(limit: float, count: int) -> float:
    """Return a limit for 32 images as it is for `count`: the distance of few images is chance."""
    return limit * max(1.0, math.sqrt(_IMAGES / count))
