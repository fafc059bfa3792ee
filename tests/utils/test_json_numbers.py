"""Floats that JSON cannot hold survive a round trip."""

import json
import math

import pytest

from mobiledeploy.utils.json_numbers import decode_float, encode_floats


@pytest.mark.parametrize(
    ("value", "written"),
    [(math.inf, None), (-math.inf, "-Infinity"), (math.nan, "NaN"), (1.5, 1.5), (0, 0)],
)
def test_a_float_survives_a_round_trip(value, written):
    assert encode_floats(value) == written
    read = decode_float(json.loads(json.dumps(encode_floats(value), allow_nan=False)))
    assert read == value or (math.isnan(read) and math.isnan(value))


def test_floats_are_encoded_at_any_depth():
    document = {"rows": [(1.0, math.inf)], "name": "inf", "none": None}
    assert encode_floats(document) == {"rows": [[1.0, None]], "name": "inf", "none": None}


def test_a_word_is_not_a_float():
    with pytest.raises(ValueError, match="equal"):
        decode_float("equal")
