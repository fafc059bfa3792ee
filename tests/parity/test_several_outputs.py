"""Several outputs: each has the metrics and the limits of its task."""

from dataclasses import replace

import networks
import numpy as np
import pytest
from parity_reports import make_report

from mobiledeploy import metrics
from mobiledeploy.errors import DataError
from mobiledeploy.network import OutputSpec
from mobiledeploy.parity.ladder import EXACT, Check, Ladder
from mobiledeploy.parity.report.rows import loss
from mobiledeploy.parity.tolerances import default_tolerances

OUTPUTS = (
    OutputSpec(name="kind", size=4, task="classes"),
    OutputSpec(name="age", size=1, task="regression"),
    OutputSpec(name="places", size=3 * 4, dimensions=(3, 2, 2), task="map"),
    OutputSpec(name="face", size=8, task="embedding"),
    OutputSpec(name="corners", size=8, dimensions=(2, 4), task="boxes"),
)
COLUMNS = {"kind": (0, 4), "age": (4, 5), "places": (5, 17), "face": (17, 25), "corners": (25, 33)}


def values():
    return np.random.default_rng(0).normal(size=(20, 33)).astype(np.float32)


def compared(candidate, limits):
    ladder = Ladder(labels=None, step=None, outputs=OUTPUTS)
    ladder.add("float", values())
    ladder.add("integers", candidate, [Check("float", limits)])
    return ladder.rungs[1].comparisons[0]


def changed(name, change):
    candidate = values()
    start, end = COLUMNS[name]
    candidate[:, start:end] = change(candidate[:, start:end])
    return candidate


def limits():
    info = networks.folded("v1", short=True).info
    return default_tolerances(replace(info, outputs=OUTPUTS)).of_quantization()


def test_each_output_has_the_metrics_of_its_task():
    found = {each.name: each.metrics for each in compared(values() + 0.01, {}).outputs}
    assert all("sqnr_db" in each for each in found.values())
    of_task = {"kind": "top1_agreement", "age": "rms_error", "places": "mean_iou"}
    of_task |= {"corners": "rms_error", "face": "mean_cosine_similarity"}
    for name, metric in of_task.items():
        assert metric in found[name]
    assert "top1_agreement" not in found["places"]
    assert found["age"]["rms_error"] == pytest.approx(0.01, rel=1e-3)


def test_limits_go_to_the_outputs_of_their_task():
    found = {each.name: set(each.limits) for each in compared(values(), limits()).outputs}
    assert found == {
        "kind": {"min_sqnr_db", "min_top1_agreement"},
        "age": {"min_sqnr_db"},
        "places": {"min_sqnr_db", "min_mean_iou"},
        "face": {"min_sqnr_db", "min_mean_cosine_similarity"},
        "corners": {"min_sqnr_db"},
    }


@pytest.mark.parametrize(
    ("name", "metric"),
    [
        ("kind", "top-1 agreement"),
        ("age", "SQNR"),
        ("places", "mean IoU"),
        ("face", "mean cosine similarity"),
        ("corners", "SQNR"),
    ],
)
def test_a_broken_output_is_named_although_the_others_are_equal(name, metric):
    assert compared(values(), limits()).passed
    found = compared(changed(name, lambda part: part[::-1]), limits())
    assert any(f"Against float PyTorch, {name}: {metric} is" in text for text in found.failures)
    assert all(f", {name}: " in text for text in found.failures)


def test_a_bias_of_one_output_does_not_hide_its_error():
    candidate = changed("age", np.zeros_like) + 100
    ladder = Ladder(labels=None, step=None, outputs=OUTPUTS)
    ladder.add("float", values() + 100)
    ladder.add("integers", candidate, [Check("float", {"min_sqnr_db": 12.0})])
    assert "age: SQNR is" in ladder.rungs[1].comparisons[0].failures[0]


def test_one_differing_value_of_any_output_fails_exactness():
    candidate = values()
    candidate[3, 20] += 1
    found = compared(candidate, EXACT)
    assert found.failures == ("1 of 660 logits differ from float PyTorch; expected none.",)
    assert found.metrics["differing_logits"] == 1


def test_labels_are_those_of_the_first_output():
    reference = values()
    reference[:, 4:] += 100
    ladder = Ladder(labels=reference[:, :4].argmax(1).tolist(), step=None, outputs=OUTPUTS)
    ladder.add("float", reference)
    assert ladder.rungs[0].accuracy == 1


def test_mean_iou_counts_places_of_all_images():
    one = np.array([[3, 3, 0, 0, 1, 1, 1, 1]], np.float32)  # two classes, four places
    other = np.array([[3, 0, 0, 0, 1, 1, 1, 1]], np.float32)
    # classes 0, 0, 1, 1 against 0, 1, 1, 1: 1 of 2 and 2 of 3
    assert metrics.mean_iou(one, other, 2) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics.mean_iou(one, one, 2) == 1
    with pytest.raises(DataError, match="8 values are no map of 3 classes"):
        metrics.mean_iou(one, other, 3)


def test_a_single_map_has_its_own_limit():
    single = (replace(OUTPUTS[2], name="logits"),)
    info = replace(networks.folded("v1", short=True).info, outputs=single)
    limits = default_tolerances(info).of_quantization()
    assert set(limits) == {"min_sqnr_db", "min_mean_iou"}
    ladder = Ladder(labels=None, step=None, outputs=single)
    ladder.add("float", values()[:, 5:17])
    ladder.add("integers", values()[::-1, 5:17], [Check("float", limits)])
    assert "mean IoU is" in " ".join(ladder.rungs[1].comparisons[0].failures)


@pytest.mark.parametrize(
    ("task", "limit", "broken", "sound"),
    [
        ("map", "min_mean_iou", 0.722, 0.960),
        ("embedding", "min_mean_cosine_similarity", 0.915, 0.997),
    ],
)
def test_the_limits_lie_between_what_broken_and_sound_networks_reach(task, limit, broken, sound):
    """As benchmarks/compositions/limits.py measured them, on networks trained on CIFAR-10."""
    shape = (2, 2, 3) if task == "map" else ()
    output = OutputSpec(size=12, task=task, dimensions=shape)
    info = replace(networks.folded("v1", short=True).info, outputs=(output,))
    assert broken < default_tolerances(info).of_quantization()[limit] < sound


def test_the_summary_names_each_output():
    report = make_report()
    rung = report.rungs[-1].model_copy(update={"comparisons": (compared(values() + 0.01, {}),)})
    text = loss(report.model_copy(update={"rungs": (rung,)}))
    assert text.startswith("ONNX Runtime against float: kind ")
    assert "places " in text
    assert "mean IoU" in text
    assert "age " in text
    assert "error 0.01" in text
