"""Points that are not worth any work."""

import pytest
import torch

from mobiledeploy.models.build import create
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.sweep.pick import Budget
from mobiledeploy.sweep.points import Point
from mobiledeploy.sweep.prune import by_size, latency_missed, macs_missed
from mobiledeploy.sweep.store import MeasuredArtifact, Result

FEW = Budget(max_macs=1e8)


def measured(point, *latencies):
    artifacts = tuple(
        MeasuredArtifact(path="a.onnx", sha256="a", size_bytes=1, latency_ms={"local": each})
        for each in latencies
    )
    return Result(point=point, state="done", artifacts=artifacts)


def test_macs_are_those_of_the_options():
    assert macs_missed(Point(model="v2"), FEW) == "301 M MACs, above 100 M"
    assert macs_missed(Point(model="v2", width=0.5), FEW) == ""
    assert macs_missed(Point(model="v2", resolution="96"), FEW) == ""


def test_macs_of_a_checkpoint_are_those_of_its_tensors(tmp_path):
    path = tmp_path / "half.pth"
    torch.save(create(ModelSpec(family="v2", width=0.5, weights="random")).state_dict(), path)
    assert macs_missed(Point(model="v2", weights=str(path)), FEW) == ""
    tight = Budget(max_macs=9e7)
    assert macs_missed(Point(model="v2", weights=str(path)), tight) == "97 M MACs, above 90 M"


def test_what_the_export_will_refuse_is_left_to_it(tmp_path):
    (tmp_path / "bad.pth").write_bytes(b"x")
    assert macs_missed(Point(model="v2", weights=str(tmp_path / "bad.pth")), FEW) == ""
    assert macs_missed(Point(model="no-such-model"), FEW) == ""


@pytest.mark.parametrize(
    ("larger", "latencies", "missed"),
    [
        ({"width": 1.0, "resolution": "160"}, (12.0, 11.0), True),
        ({"width": 1.0, "resolution": "160"}, (12.0, 9.0), False),  # one format is fast enough
        ({"width": 0.5, "resolution": "160x96"}, (11.0,), True),
        ({"width": 0.25, "resolution": "160"}, (11.0,), False),
        ({"width": 0.5, "resolution": "96"}, (11.0,), False),  # the same point
        ({"width": 1.0, "resolution": "96", "ptq": "best"}, (11.0,), False),
        ({"width": 1.0, "resolution": "96", "weights": "random"}, (11.0,), False),
        ({"width": 1.0, "resolution": "96"}, (), False),
        ({}, (11.0,), True),  # 224 pixels and width 1
    ],
)
def test_a_point_is_too_slow_if_a_smaller_one_is(larger, latencies, missed):
    known = [measured(Point(model="v2", width=0.5, resolution="96"), *latencies)]
    text = latency_missed(Point(model="v2", **larger), known, Budget(max_latency_ms=10))
    assert bool(text) == missed
    assert latency_missed(Point(model="v2", **larger), known, Budget()) == ""


def test_small_points_come_first():
    sizes = [(1.0, "160"), (0.5, "160"), (0.5, "96"), (None, "96x64"), (None, None)]
    points = [Point(model="v2", width=width, resolution=side) for width, side in sizes]
    assert [points.index(each) for each in sorted(points, key=by_size)] == [3, 2, 1, 0, 4]
