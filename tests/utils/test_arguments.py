"""Arguments of the Python API: what is accepted beside the exact type, and what is refused."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from mobiledeploy.errors import UsageError
from mobiledeploy.utils.arguments import (
    as_names,
    as_path,
    as_paths,
    require_device,
    require_fields,
    require_instance,
)


@dataclass
class Size:
    width: int = 0
    height: int = 0


@pytest.mark.parametrize("value", ["a/b.onnx", Path("a/b.onnx")])
def test_a_path_may_be_a_string(value):
    assert as_path(value, "path") == Path("a/b.onnx")
    assert as_paths(value, "paths") == (Path("a/b.onnx"),)
    assert as_paths([value, "c"], "paths") == (Path("a/b.onnx"), Path("c"))


@pytest.mark.parametrize("value", [3, None, ["a"], b"a"])
def test_anything_else_is_no_path(value):
    with pytest.raises(UsageError, match=r"out is .*; expected a path"):
        as_path(value, "out")


@pytest.mark.parametrize("value", [3, [3], None, [None]])
def test_anything_else_is_no_list_of_paths(value):
    with pytest.raises(UsageError, match=r"artifacts is .*; expected a path"):
        as_paths(value, "artifacts")


def test_one_name_needs_no_list():
    assert as_names("pte") == ("pte",)
    assert as_names(["pte", "onnx"]) == ("pte", "onnx")


def test_another_type_is_refused_with_the_remedy():
    require_instance("a", (str, int), "model", "Pass a name.")
    with pytest.raises(UsageError, match="model is of type float; expected str or int") as caught:
        require_instance(0.5, (str, int), "model", "Pass a name.")
    assert caught.value.remedy == "Pass a name."


def test_a_uri_is_no_device():
    require_device(None)
    with pytest.raises(UsageError, match="device is 'adb://'") as caught:
        require_device("adb://")
    assert "with open_device('adb://') as device" in caught.value.remedy


def test_a_field_that_does_not_exist_is_refused_with_those_that_do():
    require_fields({"width": 1}, Size, "size")
    with pytest.raises(UsageError, match="size has no field widht") as caught:
        require_fields({"widht": 1}, Size, "size")
    assert caught.value.remedy == "The fields are width, height."
    with pytest.raises(UsageError, match="size is 'wide'; expected Size or a dict"):
        require_fields("wide", Size, "size")
