"""Count hits of a classifier: integers that add up, whatever the order of the images.

Input: logits and labels of some images. Output: `Counts`, and a JSON document of several of them.
Invariant: the sum over parts of a set equals the counts of the whole set, however it was split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeInt, computed_field

from mobiledeploy.errors import DataError
from mobiledeploy.significance import wilson_interval
from mobiledeploy.utils.json_model import JsonModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

KIND: Literal["mobiledeploy.evaluation"] = "mobiledeploy.evaluation"
_TOP = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """How often images of one class were taken for another.

    Attributes:
        label: The class of the images.
        predicted: The class that they were taken for.
        images: How many.
    """

    label: int
    predicted: int
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount:
    """What a network answered on the images of one class.

    Attributes:
        label: The class.
        images: Its images.
        top1: Those whose largest logit is that of their label.
    """

    label: int
    images: int
    top1: int

    @property
    def accuracy(self) -> float:
        """Return the share of the class's images that are recognised."""
        return self.top1 / self.images


class Counts(JsonModel):
    """What one network answered on labelled images.

    Attributes:
        images: Number of images.
        top1: Images whose largest logit is that of their label.
        top5: Images whose label is among the five largest logits.
        agreeing: Images with the same largest logit as in the first network of the evaluation.
        predictions: Number of images by "label,predicted".
    """

    images: NonNegativeInt = 0
    top1: NonNegativeInt = 0
    top5: NonNegativeInt = 0
    agreeing: NonNegativeInt = 0
    predictions: Mapping[str, NonNegativeInt] = Field(default_factory=dict)

    @classmethod
    def of(
        cls, logits: NDArray[np.float32], labels: Sequence[int], first: NDArray[np.float32]
    ) -> Self:
        """Count one batch.

        Args:
            logits: (N, classes).
            labels: Class index of each image.
            first: The logits of the first network on the same images.
        """
        truth = np.asarray(labels)
        # stable: of equal logits the class with the smaller index counts as larger, as in argmax
        order = np.argsort(-logits, axis=1, kind="stable")[:, :_TOP]
        predicted = order[:, 0]
        pairs = Counter(f"{label},{guess}" for label, guess in zip(truth, predicted, strict=True))
        return cls(
            images=len(truth),
            top1=int(np.count_nonzero(predicted == truth)),
            top5=int(np.count_nonzero((order == truth[:, None]).any(1))),
            agreeing=int(np.count_nonzero(predicted == first.argmax(1))),
            predictions=dict(pairs),
        )

    def plus(self, other: Counts) -> Counts:
        """Return the counts of both parts."""
        pairs = Counter(self.predictions)
        pairs.update(other.predictions)
        return Counts(
            images=self.images + other.images,
            top1=self.top1 + other.top1,
            top5=self.top5 + other.top5,
            agreeing=self.agreeing + other.agreeing,
            predictions=dict(sorted(pairs.items(), key=lambda item: _pair(item[0]))),
        )

    def confusions(self) -> tuple[Confusion, ...]:
        """Return which classes are taken for which others, the most frequent first."""
        pairs = ((*_pair(key), images) for key, images in self.predictions.items())
        wrong = (
            Confusion(label=label, predicted=predicted, images=images)
            for label, predicted, images in pairs
            if label != predicted
        )
        return tuple(sorted(wrong, key=lambda each: (-each.images, each.label, each.predicted)))

    def by_class(self) -> tuple[ClassCount, ...]:
        """Return the counts of every class that occurs, in the order of the classes."""
        totals: Counter[int] = Counter()
        hits: Counter[int] = Counter()
        for key, images in self.predictions.items():
            label, predicted = _pair(key)
            totals[label] += images
            hits[label] += images * (label == predicted)
        return tuple(
            ClassCount(label=label, images=totals[label], top1=hits[label])
            for label in sorted(totals)
        )


class NetworkResult(JsonModel):
    """The result of one network.

    Attributes:
        name: The artifact's file, or "float PyTorch".
        sha256: sha256 of the file, or of the checkpoint.
        runtime: Name and version of the runtime.
        counts: What it answered.
    """

    name: str
    sha256: str
    runtime: str
    counts: Counts

    @computed_field  # type: ignore[prop-decorator]
    @property
    def top1_accuracy(self) -> float:
        """Share of images whose largest logit is that of their label."""
        return self.counts.top1 / self.counts.images if self.counts.images else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def top1_interval(self) -> tuple[float, float]:
        """95% confidence interval of `top1_accuracy` (Wilson)."""
        if not self.counts.images:
            return 0.0, 1.0
        return wilson_interval(self.counts.top1, self.counts.images)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def top5_accuracy(self) -> float:
        """Share of images whose label is among the five largest logits."""
        return self.counts.top5 / self.counts.images if self.counts.images else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def agreement(self) -> float:
        """Share of images with the same largest logit as in the first network."""
        return self.counts.agreeing / self.counts.images if self.counts.images else 0.0

    @computed_field  # type: ignore[prop-decorator]
    @property
    def classes(self) -> tuple[ClassCount, ...]:
        """Hits and images of every class that occurs, in the order of the classes."""
        return self.counts.by_class()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def confusions(self) -> tuple[Confusion, ...]:
        """Which classes are taken for which others, the most frequent first."""
        return self.counts.confusions()


class Evaluation(JsonModel):
    """What `mobiledeploy evaluate --json` writes: one set of images, or a part of it.

    Attributes:
        data: Path of the images.
        data_sha256: sha256 over the names, sizes and labels of all images of the set.
        images: Number of images in the set.
        class_names: Names of the classes; empty if unknown.
        output: Name of the output that was counted; empty in documents of before.
        parts: Ranges of images that were evaluated, [start, stop), in order.
        networks: The results, in the order of the command line.
    """

    schema_version: Literal[1] = Field(default=1, alias="schema")
    kind: Literal["mobiledeploy.evaluation"] = KIND
    data: str
    data_sha256: str
    images: NonNegativeInt
    class_names: tuple[str, ...] = ()
    output: str = ""
    parts: tuple[tuple[NonNegativeInt, NonNegativeInt], ...]
    networks: tuple[NetworkResult, ...]

    @property
    def done(self) -> int:
        """Return the number of images that were evaluated."""
        return sum(stop - start for start, stop in self.parts)

    def require_same(self, other: Evaluation) -> None:
        """Raise DataError unless both are of the same images, networks and output."""
        mine = [(network.name, network.sha256) for network in self.networks]
        others = [(network.name, network.sha256) for network in other.networks]
        for what, a, b in (
            ("images", self.data_sha256, other.data_sha256),
            ("networks", mine, others),
            ("outputs", self.output, other.output),
        ):
            if a != b:
                raise DataError(
                    f"The results are of different {what}.",
                    remedy="Evaluate the same artifacts on the same images, or start anew.",
                )


def merge(parts: Sequence[Evaluation]) -> Evaluation:
    """Return the evaluation of several parts of one set of images together.

    Raises:
        DataError: they are of different images or networks, or count an image twice.
    """
    return reduce(_merge_two, parts)


def _merge_two(a: Evaluation, b: Evaluation) -> Evaluation:
    a.require_same(b)
    ranges: list[tuple[int, int]] = []
    for start, stop in sorted((*a.parts, *b.parts)):
        if ranges and start < ranges[-1][1]:
            raise DataError(
                f"Image {start} of {a.data} is in two of the results.",
                remedy="Merge each part once.",
            )
        if ranges and start == ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], stop)
        else:
            ranges.append((start, stop))
    networks = tuple(
        one.model_copy(update={"counts": one.counts.plus(other.counts)})
        for one, other in zip(a.networks, b.networks, strict=True)
    )
    return a.model_copy(update={"parts": tuple(ranges), "networks": networks})


def _pair(key: str) -> tuple[int, int]:
    label, predicted = key.split(",")
    return int(label), int(predicted)
