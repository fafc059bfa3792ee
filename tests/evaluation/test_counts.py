"""Counts add up, whatever the split."""

import itertools

import numpy as np
import pytest

from mobiledeploy.errors import DataError
from mobiledeploy.evaluation.counts import (
    ClassCount,
    Confusion,
    Counts,
    Evaluation,
    NetworkResult,
    merge,
)

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(60, 8)).round(1).astype(np.float32)
OTHER = (LOGITS + RANDOM.normal(size=LOGITS.shape) * 0.5).astype(np.float32)
LABELS = RANDOM.integers(0, 8, 60).tolist()


def counts(start=0, stop=60):
    return Counts.of(OTHER[start:stop], LABELS[start:stop], LOGITS[start:stop])


def evaluation(start, stop, **changes):
    result = NetworkResult(name="a.onnx", sha256="a0", runtime="x 1", counts=counts(start, stop))
    made = Evaluation(
        data="photos", data_sha256="d0", images=60, parts=((start, stop),), networks=(result,)
    )
    return made.model_copy(update=changes)


def test_hits_are_counted():
    found = counts()
    assert found.images == 60
    assert found.top1 == np.count_nonzero(OTHER.argmax(1) == LABELS)
    ranks = (OTHER[np.arange(60), LABELS][:, None] < OTHER).sum(1)
    assert found.top5 == np.count_nonzero(ranks < 5)
    assert found.agreeing == np.count_nonzero(OTHER.argmax(1) == LOGITS.argmax(1))
    assert sum(found.predictions.values()) == 60


def test_of_equal_logits_the_smaller_class_counts_as_in_argmax():
    logits = np.array([[1, 1, 0]], np.float32)
    assert Counts.of(logits, [0], logits).top1 == 1
    assert Counts.of(logits, [1], logits).top1 == 0


def test_classes_and_confusions():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2]]
    found = Counts.of(logits, [0, 0, 0, 2], logits)
    first, second = found.by_class()
    assert first == ClassCount(label=0, images=3, top1=1)
    assert second == ClassCount(label=2, images=1, top1=1)
    assert first.accuracy == pytest.approx(1 / 3)
    assert found.confusions() == (Confusion(label=0, predicted=1, images=2),)


def test_the_document_holds_classes_and_confusions():
    logits = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 0]]
    result = NetworkResult(
        name="a", sha256="", runtime="", counts=Counts.of(logits, [0, 0, 0, 2, 2], logits)
    )
    document = result.model_dump(mode="json")
    assert document["classes"] == [
        {"label": 0, "images": 3, "top1": 1},
        {"label": 2, "images": 2, "top1": 1},
    ]
    assert document["confusions"] == [
        {"label": 0, "predicted": 1, "images": 2},
        {"label": 2, "predicted": 0, "images": 1},
    ]


@pytest.mark.parametrize("cuts", [(0, 60), (0, 30, 60), (0, 1, 2, 7, 20, 21, 44, 60)])
def test_any_split_in_any_order_gives_the_same_answer(cuts):
    parts = [evaluation(start, stop) for start, stop in itertools.pairwise(cuts)]
    whole = evaluation(0, 60)
    for order in itertools.islice(itertools.permutations(parts), 10):
        merged = merge(order)
        assert merged.parts == ((0, 60),)
        assert merged.networks[0].counts.images == 60
        assert merged.networks[0].top1_interval == whole.networks[0].top1_interval
        assert merged.networks[0].counts.by_class() == whole.networks[0].counts.by_class()
        assert merged.networks[0].counts.confusions() == whole.networks[0].counts.confusions()


def test_gaps_are_kept():
    assert merge([evaluation(40, 60), evaluation(0, 10)]).parts == ((0, 10), (40, 60))
    assert merge([evaluation(40, 60), evaluation(0, 10)]).done == 30


def test_no_image_counts_twice():
    with pytest.raises(DataError, match="Image 9 of photos is in two of the results"):
        merge([evaluation(0, 10), evaluation(9, 60)])


@pytest.mark.parametrize(
    "changes", [{"data_sha256": "other"}, {"networks": ()}, {"output": "pose"}]
)
def test_other_images_or_networks_are_refused(changes):
    with pytest.raises(DataError, match="of different"):
        merge([evaluation(0, 10), evaluation(10, 60, **changes)])


def test_an_empty_part_has_no_accuracy():
    empty = NetworkResult(name="a", sha256="", runtime="", counts=Counts())
    assert (empty.top1_accuracy, empty.top1_interval) == (0.0, (0.0, 1.0))
