"""Evaluation part by part: shards, interruption, damaged results."""

import json

import numpy as np
import pytest

from mobiledeploy.data.stream import ImageStream
from mobiledeploy.errors import DataError
from mobiledeploy.evaluation.counts import merge
from mobiledeploy.evaluation.evaluate import Network, evaluate, read_evaluation

COUNT = 700
WEIGHTS = np.random.default_rng(1).normal(size=(12, 5)).astype(np.float32)


def pixels(index):
    return np.random.default_rng(index).normal(size=(3, 2, 2)).astype(np.float32)


class Recording:
    """A stream of 700 images that remembers which were read."""

    def __init__(self):
        self.read = []

    def stream(self):
        def read(indices):
            self.read += indices
            return np.stack([pixels(index) for index in indices])

        labels = tuple(index % 5 for index in range(COUNT))
        return ImageStream(
            source="photos", labels=labels, sha256="d0", class_names=(), notes=(), read=read
        )


def linear(images):
    return images.reshape(len(images), -1) @ WEIGHTS


def coarse(images):
    return np.round(linear(images))


NETWORKS = [Network("a", "a0", "numpy", linear), Network("b", "b0", "numpy", coarse)]


def answers(result):
    return [network.counts for network in result.networks]


def test_every_image_is_counted_once():
    recording = Recording()
    result = evaluate(NETWORKS, recording.stream())
    assert sorted(recording.read) == list(range(COUNT))
    first, second = answers(result)
    assert first.images == second.images == COUNT
    expected = linear(np.stack([pixels(index) for index in range(COUNT)]))
    assert first.top1 == np.count_nonzero(expected.argmax(1) == np.arange(COUNT) % 5)
    assert first.agreeing == COUNT
    assert second.agreeing < COUNT


@pytest.mark.parametrize("parts", [2, 7, 699])
def test_shards_add_up_to_the_same_answer(parts):
    stream = Recording().stream()
    if parts == 699:  # the last and smallest parts only
        shards = [evaluate(NETWORKS, stream, shard=(i, parts)) for i in (1, 699)]
        assert sum(shard.done for shard in shards) in (2, 3)
        return
    shards = [evaluate(NETWORKS, stream, shard=(i, parts)) for i in range(parts, 0, -1)]
    merged = merge(shards)
    assert merged.parts == ((0, COUNT),)
    assert answers(merged) == answers(evaluate(NETWORKS, stream))


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    kept = tmp_path / "kept.json"
    calls = []

    def interrupted(images):
        calls.append(len(images))
        if len(calls) == 30:
            raise KeyboardInterrupt
        return linear(images)

    broken = [Network("a", "a0", "numpy", interrupted), NETWORKS[1]]
    with pytest.raises(KeyboardInterrupt):
        evaluate(broken, Recording().stream(), resume=kept)
    assert read_evaluation(kept).parts == ((0, 29 * 16),)
    recording = Recording()
    result = evaluate(NETWORKS, recording.stream(), resume=kept)
    assert min(recording.read) == 29 * 16
    assert answers(result) == answers(evaluate(NETWORKS, Recording().stream()))
    again = Recording()
    assert answers(evaluate(NETWORKS, again.stream(), resume=kept)) == answers(result)
    assert again.read == []


def test_what_was_kept_of_other_networks_is_refused(tmp_path):
    kept = tmp_path / "kept.json"
    evaluate(NETWORKS[:1], Recording().stream(), resume=kept)
    with pytest.raises(DataError, match="of different networks"):
        evaluate(NETWORKS, Recording().stream(), resume=kept)
    with pytest.raises(DataError, match="keeps another part"):
        evaluate(NETWORKS[:1], Recording().stream(), resume=kept, shard=(2, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Could not read"),
        ("[]", "is no result of"),
        ('{"kind": "mobiledeploy.parity"}', "is no result of"),
        ('{"kind": "mobiledeploy.evaluation", "schema": 1}', "is damaged"),
    ],
)
def test_damaged_results_are_refused(tmp_path, text, message):
    path = tmp_path / "kept.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_evaluation(path)
    with pytest.raises(DataError, match="Could not read"):
        read_evaluation(tmp_path / "missing.json")


def test_the_document_survives_its_json(tmp_path):
    path = tmp_path / "kept.json"
    result = evaluate(NETWORKS, Recording().stream(), resume=path)
    assert read_evaluation(path) == result
    assert json.loads(path.read_text())["networks"][0]["top1_accuracy"] == pytest.approx(
        result.networks[0].top1_accuracy
    )
