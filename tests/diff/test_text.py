"""Sentences and documents about a difference: conclusions follow from the numbers."""

import pytest
from differences import (
    ENCODINGS,
    EXACT,
    FILES,
    OTHER_FORMAT,
    SAME,
    SAME_BYTES,
    compared,
    difference,
    outputs,
)

from mobiledeploy.diff.text import (
    describe_files,
    describe_outputs,
    encoding_rows,
    headline,
    input_rows,
    judge_outputs,
)
from mobiledeploy.diff.types import (
    Change,
    InputComparison,
    PairedComparison,
)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"encodings": ENCODINGS}, "The inputs are the same, but the int8 networks differ"),
        ({"encodings": EXACT}, "only the files differ"),
        ({"encodings": None}, "The inputs are the same, but the files differ."),
        ({"encodings": EXACT, "files": OTHER_FORMAT}, "in two formats"),
        ({"encodings": EXACT, "files": SAME_BYTES}, "No difference"),
    ],
)
def test_the_headline_names_the_first_thing_that_differs(changes, sentence):
    assert sentence in " ".join(headline(difference(**changes)))


@pytest.mark.parametrize(
    ("comparison", "start"),
    [
        (
            PairedComparison(a=9, b=1, p_value=0.02),
            "A is closer to float: A 20.0 dB, 0.900, B 10.0 dB, 0.800;",
        ),
        (PairedComparison(a=1, b=9, p_value=0.02), "B is closer to float: "),
        (PairedComparison(a=6, b=4, p_value=0.75), "Neither is significantly closer to float: "),
    ],
)
def test_a_winner_is_only_named_if_the_difference_is_significant(comparison, start):
    (sentence,) = judge_outputs(outputs(closer_to_float=comparison))
    assert sentence.startswith(start)
    assert f"A is better on {comparison.a} images, B on {comparison.b}" in sentence


def test_accuracy_includes_the_images_that_both_predict_correctly():
    correct = PairedComparison(a=3, b=1, p_value=0.6)
    (sentence,) = judge_outputs(outputs(correct=correct, both_correct=4))
    assert "Neither is significantly more accurate: top-1 A 0.700, B 0.500" in sentence


def test_equal_logits_have_no_winner():
    comparison = PairedComparison(a=9, b=1, p_value=0.02)
    same = outputs(metrics={"differing_logits": 0.0}, closer_to_float=comparison)
    assert list(judge_outputs(same)) == ["The logits are equal on all 10 images."]


def test_outputs_are_described():
    assert describe_outputs(outputs(metrics={})).endswith("not compared with each other.")
    equal = outputs(metrics={"differing_logits": 0.0, "logits": 100.0})
    assert describe_outputs(equal) == "Outputs on 10 images from photos: 0 of 100 logits differ."


def test_changed_fields_are_listed_below_their_input():
    changes = (
        Change(field="sha256", a="abc", b="def"),
        *(Change(field=f"field{i}", a="1", b="") for i in range(10)),
    )
    recipe = InputComparison(name="recipe", a="one", b="two", changes=changes)
    table = input_rows(difference(inputs=(SAME, recipe)))
    assert table[:3] == [
        ("network", "mobilenet", "same"),
        ("recipe", "one", "two"),
        ("  field0", "1", "-"),
    ]
    assert table[-1] == ("  2 more", "", "")
    exact = compared(float("inf"), 1.0, images=3)
    (*_, last) = input_rows(difference(a_at_export=exact))
    assert last == (
        "at export",
        "equal, 1.000 against float, on 3 images from photos",
        "not measured",
    )


def test_ranges_and_sizes_are_described():
    assert encoding_rows(ENCODINGS) == [("features.1 add", "0 to 128", "0 to 255", "2.00")]
    text = " ".join(describe_files(FILES))
    assert "1,000 and 1,200 bytes (+200), different bytes" in text
    assert "Constants: int8 800 and 1,000 bytes." in text
    assert "Operators: the same" in text
    assert "in int8" not in text
    counted = FILES.model_copy(update={"int8_macs_shares": (1.0, 0.25)})
    assert "Multiply-accumulates in int8: 100.0% and 25.0%." in " ".join(describe_files(counted))
    half = FILES.model_copy(update={"int8_macs_shares": (1.0, None)})
    assert "Multiply-accumulates in int8: 100.0% and not counted." in " ".join(describe_files(half))
