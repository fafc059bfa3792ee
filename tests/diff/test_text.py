"""What is said of two artifacts follows from what was found; chance is called chance."""

from dataclasses import replace

import pytest

from mobiledeploy.diff.json_report import difference_document, reproduction_document
from mobiledeploy.diff.text import encoding_rows, files_in_words, headline, judged, rows
from mobiledeploy.diff.types import (
    Change,
    Difference,
    EncodingsDiff,
    FilesDiff,
    FloatComparison,
    InputComparison,
    MovedEncoding,
    OutputsDiff,
    PairedComparison,
    Reproduction,
)
from mobiledeploy.network import Encoding

SAME = InputComparison(name="network", a="mobilenet", b="mobilenet", changes=())
FILES = FilesDiff(
    same_bytes=False,
    formats=("onnx", "onnx"),
    a_bytes=1000,
    b_bytes=1200,
    operators=(),
    constants={"int8": (800, 1000), "float32": (8, 8)},
)
MOVED = MovedEncoding(
    name="add",
    layer="features.1",
    a=Encoding(scale=0.5, zero_point=-128),
    b=Encoding(scale=1.0, zero_point=-128),
)
ENCODINGS = EncodingsDiff(common=3, moved=(MOVED,), only_a=(), only_b=(), same_network=False)
EXACT = EncodingsDiff(common=3, moved=(), only_a=(), only_b=(), same_network=True)


def difference(**changes):
    found = {
        "a": "a.onnx",
        "b": "b.onnx",
        "parts": (SAME,),
        "encodings": ENCODINGS,
        "files": FILES,
        "a_recorded": None,
        "b_recorded": None,
    }
    return Difference(**(found | changes))


def outputs(**changes):
    found = {
        "count": 10,
        "source": "photos",
        "figures": {"differing_logits": 4.0, "logits": 100.0},
        "flips": (),
        "a_loss": FloatComparison(sqnr_db=20.0, agreement=0.9, images=10, source="photos"),
        "b_loss": FloatComparison(sqnr_db=10.0, agreement=0.8, images=10, source="photos"),
    }
    return OutputsDiff(**(found | changes))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encodings": ENCODINGS}, "All that went in is the same, the int8 network is not"),
        ({"encodings": EXACT}, "only the file differs"),
        ({"encodings": None}, "All that went in is the same, the file is not."),
        (
            {"encodings": EXACT, "files": replace(FILES, formats=("onnx", "pte"))},
            "in two formats",
        ),
        ({"encodings": EXACT, "files": replace(FILES, same_bytes=True)}, "No difference"),
    ],
)
def test_the_answer_comes_from_the_first_thing_that_differs(changes, said):
    assert said in " ".join(headline(difference(**changes)))


@pytest.mark.parametrize(
    ("duel", "said"),
    [
        (
            PairedComparison(a=9, b=1, chance=0.02),
            "A is nearer to float: A 20.0 dB, 0.900, B 10.0 dB, 0.800;",
        ),
        (PairedComparison(a=1, b=9, chance=0.02), "B is nearer to float: "),
        (PairedComparison(a=6, b=4, chance=0.75), "Neither is shown to be nearer to float: "),
    ],
)
def test_who_is_nearer_to_float(duel, said):
    (sentence,) = judged(outputs(nearer=duel))
    assert sentence.startswith(said)
    assert f"{duel.a} images speak for A, {duel.b} for B" in sentence


def test_accuracy_counts_what_both_get_right():
    (sentence,) = judged(outputs(right=PairedComparison(a=3, b=1, chance=0.6), both_right=4))
    assert "Neither is shown to be more accurate: top-1 A 0.700, B 0.500" in sentence


def test_equal_logits_have_no_winner():
    same = outputs(
        figures={"differing_logits": 0.0}, nearer=PairedComparison(a=9, b=1, chance=0.02)
    )
    assert list(judged(same)) == ["Their logits are the same on all 10 images."]


def test_fields_that_differ_stand_below_their_part():
    changes = (
        Change(field="sha256", a="abc", b="def"),
        *(Change(field=f"field{i}", a="1", b="") for i in range(10)),
    )
    part = InputComparison(name="recipe", a="one", b="two", changes=changes)
    table = rows(difference(parts=(SAME, part)))
    assert table[:3] == [
        ("network", "mobilenet", "the same"),
        ("recipe", "one", "two"),
        ("  field0", "1", "-"),
    ]
    assert table[-1] == ("  2 more", "", "")
    loss = FloatComparison(sqnr_db=float("inf"), agreement=1.0, images=3, source="photos")
    (*_, last) = rows(difference(a_recorded=loss))
    assert last == ("as exported", "equal, 1.000 with float, on 3 images from photos", "not measured")


def test_ranges_and_sizes_are_told():
    assert encoding_rows(ENCODINGS) == [("features.1 add", "0 to 128", "0 to 255", "2.00")]
    said = " ".join(files_in_words(FILES))
    assert "1,000 and 1,200 bytes (+200), other bytes" in said
    assert "Constants: int8 800 and 1,000 bytes." in said
    assert "Operators: the same" in said
    assert "int8" not in said.replace("int8 800", "")
    told = " ".join(files_in_words(replace(FILES, int8_macs_shares=(1.0, 0.25))))
    assert "Multiply-accumulates in int8: 100.0% and 25.0%." in told
    told = " ".join(files_in_words(replace(FILES, int8_macs_shares=(1.0, None))))
    assert "Multiply-accumulates in int8: 100.0% and not counted." in told


def test_documents_hold_what_json_can_say():
    exact = FloatComparison(sqnr_db=float("inf"), agreement=1.0, images=3, source="photos")
    told = difference(a_recorded=exact, outputs=outputs(b_loss=exact))
    document = difference_document(told)
    assert (document["schema"], document["kind"]) == (1, "mobiledeploy.diff")
    assert document["same"] is False
    assert document["headline"] == list(headline(told))
    assert document["a_recorded"]["sqnr_db"] is None
    assert document["outputs"]["b_loss"]["sqnr_db"] is None
    (moved,) = document["encodings"]["moved"]
    assert (moved["scale_ratio"], moved["distance"]) == (2.0, 1.0)
    done = Reproduction(
        manifest="m", expected_sha256="abc", found_sha256="", reasons=("why",), difference=told
    )
    document = reproduction_document(done)
    assert (document["same"], document["found_sha256"], document["reasons"]) == (
        False,
        None,
        ["why"],
    )
    assert document["difference"]["b_recorded"] is None
