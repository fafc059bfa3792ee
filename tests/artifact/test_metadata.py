"""Metadata of damaged and foreign artifacts are refused before anything reads them."""

import json
import zlib
from pathlib import Path

import pytest

from mobiledeploy.artifact.metadata import decode, output_names
from mobiledeploy.artifact.pte_file import decode_description
from mobiledeploy.errors import ArtifactError


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (5.0, "not a JSON object"),
        ([], "not a JSON object"),
        ({"outputs": 5}, "does not name"),
        ({"outputs": ["logits"]}, "does not name"),
        ({"outputs": [{"name": 3}]}, "does not name"),
        ({"outputs": [{"name": "a", "scale": "x", "zero_point": 1}]}, "does not name"),
        ({"outputs": [{"name": "a", "scale": 0.5}]}, "does not name"),
        ({"outputs": [{"name": "a", "tensors": ["b"], "shape": [3]}]}, "does not name"),
        ({"outputs": [{"name": "a", "tensors": ["b", "c"], "shape": [2**40]}]}, "does not name"),
    ],
)
def test_a_document_of_another_form_is_refused(document, problem):
    with pytest.raises(ValueError, match=problem):
        decode(json.dumps(document))


def test_outputs_are_named_in_order():
    outputs = [{"name": "a"}, {"name": "b", "tensors": ["values", "indices"], "shape": [5]}]
    assert output_names(decode(json.dumps({"outputs": outputs}))) == ("a", "values", "indices")
    assert output_names(decode("{}")) == ("logits",)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (zlib.compress(b"\n" * (20 << 20)), "more than"),
        (zlib.compress(b"tench\ngoldfish")[:-4], "cut off"),
        (b"labels", "damaged"),
    ],
    ids=["expands", "cut off", "no zlib"],
)
def test_labels_that_do_not_decompress_are_refused(labels, problem):
    with pytest.raises(ArtifactError, match=problem):
        decode_description(Path("a.pte"), b"{}", labels)
