"""The table of formats: every row names code that exists, and suffixes select rows."""

from pathlib import Path

import pytest

from mobiledeploy.artifact.artifact import Format, load
from mobiledeploy.errors import ArtifactError


@pytest.mark.parametrize("file_format", list(Format))
def test_every_row_names_existing_code(file_format):
    for reference in (file_format.exporter, file_format.inspector):
        assert callable(load(reference))
    assert load(file_format.runner).runtime
    if file_format.verifier:
        assert callable(load(file_format.verifier))


def test_a_format_is_its_suffix():
    assert [str(each) for each in Format] == ["pte", "onnx", "tflite"]
    assert Format.of(Path("a/b.int8.pte")) is Format.PTE
    assert Format.of(Path("b.onnx")) is Format.ONNX
    assert Format.ONNX.suffix == ".onnx"


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.mlmodel", "ends in '.mlmodel'"),
        ("pte", "has no suffix"),
        ("a.PTE", "ends in '.PTE'"),
    ],
)
def test_unknown_suffixes_are_refused(name, found):
    with pytest.raises(ArtifactError, match=rf"{name} {found}; expected .pte, .onnx or"):
        Format.of(Path(name))
