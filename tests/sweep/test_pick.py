"""Budgets, the Pareto front and the pick."""

import pytest

from mobiledeploy.sweep.pick import Budget, no_pick, ranked, reason, rows_of
from mobiledeploy.sweep.points import Point
from mobiledeploy.sweep.store import MeasuredArtifact, Result


def result(name, top1, latency, size):
    artifact = MeasuredArtifact(
        path=f"sweep/{name}.onnx",
        sha256=name,
        size_bytes=size,
        top1=top1,
        latency_ms={} if latency is None else {"local": latency, "pi": latency * 4},
    )
    return Result(point=Point(model="v2"), state="done", artifacts=(artifact,))


RESULTS = [
    result("large", 0.75, 12.0, 4_000_000),
    result("small", 0.65, 4.0, 1_000_000),
    result("dominated", 0.64, 5.0, 1_000_000),
    result("middle", 0.70, 8.0, 2_000_000),
]


def names(rows):
    return [row.artifact.sha256 for row in rows]


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        ({}, ["large", "middle", "small", "dominated"]),
        ({"max_latency_ms": 33}, ["middle", "small", "dominated"]),  # on the slowest device
        ({"max_size_bytes": 1.5e6}, ["small", "dominated"]),
        ({"min_top1": 0.7}, ["large", "middle"]),
        ({"min_top1": 0.9}, []),
    ],
)
def test_the_pick_is_the_most_accurate_within_the_budget(budget, expected):
    assert names(ranked(rows_of(RESULTS, Budget(**budget)))) == expected


def test_the_front_has_what_nothing_beats():
    rows = rows_of(RESULTS, Budget())
    assert names([row for row in rows if row.on_front]) == ["large", "small", "middle"]


def test_a_row_is_named_by_its_point_and_format():
    assert rows_of(RESULTS, Budget())[0].name == "v2, balanced (.onnx)"


def test_what_was_not_measured_is_no_advantage():
    unknown = [
        result("no-latency", 0.75, None, 4_000_000),
        result("nothing", None, None, 2_000_000),
    ]
    rows = rows_of([*unknown, *RESULTS], Budget())
    assert names([row for row in rows if row.on_front]) == ["large", "small", "middle"]
    best = ranked(rows)
    assert names(best)[:2] == ["large", "no-latency"]
    assert reason(best).endswith("is the same, and the latency of the second was not measured.")


def test_without_any_latency_accuracy_and_size_make_the_front():
    sizes = [result("a", 0.7, None, 200), result("b", 0.6, None, 100), result("c", 0.6, None, 200)]
    rows = rows_of(sizes, Budget())
    assert names([row for row in rows if row.on_front]) == ["a", "b"]


def test_equal_artifacts_are_both_on_the_front():
    rows = rows_of([RESULTS[0], RESULTS[0]], Budget())
    assert [row.on_front for row in rows] == [True, True]


def test_without_accuracy_there_is_no_pick():
    rows = rows_of([result("a", None, 3.0, 10)], Budget(min_top1=0.5))
    assert rows[0].missed == ""
    assert ranked(rows) == []


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([], "It is the only one within the budget."),
        ([("b", 0.70, 8.0, 100)], "Against the second, v2, balanced (.onnx): its top-1 is 0.0500"),
        ([("b", 0.75, 12.5, 100)], "its top-1 is the same, and it is 2 ms faster."),
        ([("b", 0.75, 12.0, 4_500_000)], "and latency are the same, and it is 0.5 MB smaller."),
        ([("b", 0.75, 12.0, 4_000_000)], "both are the same in accuracy, latency and size."),
    ],
)
def test_the_pick_is_explained(others, why):
    results = [RESULTS[0], *(result(*other) for other in others)]
    assert why in reason(ranked(rows_of(results, Budget())))


def test_without_a_pick_there_is_nothing_to_explain():
    assert reason([]) == ""


def test_a_missed_limit_is_explained():
    (row,) = rows_of([RESULTS[0]], Budget(max_size_bytes=3e6, max_latency_ms=1))
    assert row.missed == "4.00 MB, above 3 MB"
    (row,) = rows_of([RESULTS[0]], Budget(max_latency_ms=40))
    assert row.missed == "48 ms, above 40 ms"


def test_no_pick_has_one_of_three_reasons():
    assert no_pick([]) == "No point was exported"
    assert no_pick(rows_of(RESULTS, Budget(min_top1=0.9))) == "No artifact keeps the budget"
    unmeasured = rows_of([result("plain", None, 3.0, 1_000_000)], Budget())
    assert no_pick(unmeasured) == "No pick: no accuracy was measured (--data)"
