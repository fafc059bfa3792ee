"""Points of a sweep: combinations, files, identities."""

import hashlib
import json

import pytest

from mobiledeploy.errors import LoadError, UsageError
from mobiledeploy.sweep.points import Point, digest_of_images, grid, read_grid, split


def test_a_grid_is_every_combination_once():
    points = grid({"model": ["v2", "v3-small"], "width": ["0.5", "1"], "ptq": ["fast", "fast"]})
    assert points == [
        Point(model="v2", width=0.5, ptq="fast"),
        Point(model="v2", width=1.0, ptq="fast"),
        Point(model="v3-small", width=0.5, ptq="fast"),
        Point(model="v3-small", width=1.0, ptq="fast"),
    ]


def test_a_file_holds_one_grid_or_several(tmp_path):
    path = tmp_path / "grid.yml"
    path.write_text("model: [v2, v3-small]\nresolution: 96\n")
    assert [point.title for point in read_grid(path)] == [
        "v2, 96 pixels, balanced",
        "v3-small, 96 pixels, balanced",
    ]
    path.write_text("- {model: v2, width: [0.5, 1.0]}\n- {model: v1, ptq: fp32}\n")
    assert [point.title for point in read_grid(path)] == [
        "v2, width 0.5, balanced",
        "v2, width 1, balanced",
        "v1, fp32",
    ]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({}, "needs a model"),
        ({"model": ["v2"], "depth": ["3"]}, "no axis 'depth'"),
        ({"model": ["v2", "v9"]}, "There is no model 'v9'"),
        ({"model": ["v2"], "width": ["wide"]}, "--width is 'wide'"),
        ({"model": ["v2"], "ptq": ["slow"]}, "--ptq is 'slow'"),
        ({"model": ["v2"], "input": ["rgb"]}, "--input is 'rgb'; expected one of float"),
        ({"model": ["v2"], "resolution": ["96x"]}, "--resolution is '96x'"),
        ({"model": ["v2"], "resolution": ["-1"]}, "--resolution is '-1'"),
    ],
)
def test_invalid_values_are_refused(axes, message):
    with pytest.raises(UsageError, match=message):
        grid(axes)


@pytest.mark.parametrize("text", ["5", "- - v2\n", "1: 2\n"])
def test_other_documents_are_refused(tmp_path, text):
    path = tmp_path / "grid.yml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"grid\.yml"):
        read_grid(path)


@pytest.mark.parametrize("text", ["model: [v2\n", "[" * 5000])
def test_files_that_are_no_yaml_cannot_be_read(tmp_path, text):
    path = tmp_path / "grid.yml"
    path.write_text(text)
    with pytest.raises(LoadError, match=r"grid\.yml"):
        read_grid(path)
    with pytest.raises(LoadError, match=r"missing\.yml: No such file or directory\.$") as refused:
        read_grid(tmp_path / "missing.yml")
    assert refused.value.remedy


def test_the_input_is_an_axis_that_leaves_earlier_results_valid():
    plain = Point(model="v2")
    explicit, pixels = grid({"model": ["v2"], "input": ["float", "rgba-u8"]})
    assert plain == explicit
    assert pixels.title == "v2, balanced, rgba-u8"
    arguments = pixels.export_arguments()
    assert arguments[arguments.index("--input") + 1] == "rgba-u8"
    assert "--input" not in plain.export_arguments()
    # as it was before there was this axis
    document = {
        "model": "v2",
        "width": None,
        "resolution": None,
        "ptq": "balanced",
        "weights": "",
        "context": {},
    }
    before = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    assert plain.identity({}) == before
    assert pixels.identity({}) != before


def test_the_arguments_of_the_export():
    point = Point(model="v2", width=0.5, resolution="160x120", ptq="fast", weights="random")
    assert point.export_arguments() == [
        *("v2", "--width", "0.5", "--resolution", "160x120", "--weights", "random"),
        *("--int8", "--ptq", "fast"),
    ]
    assert point.sides == (160, 120)
    assert Point(model="v1", ptq="fp32").export_arguments() == ["v1"]


def test_the_identity_follows_the_checkpoints_content(tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(b"one")
    point = Point(model="v2", weights=str(path))
    first = point.identity({"runs": 5})
    assert first == point.identity({"runs": 5})
    assert first != point.identity({"runs": 6})
    path.write_bytes(b"two")
    assert first != point.identity({"runs": 5})


def test_the_digest_of_images(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.png").write_bytes(b"1")
    first = digest_of_images(tmp_path / "set")
    (tmp_path / "set" / "b.png").write_bytes(b"1")
    assert digest_of_images(tmp_path / "set") != first
    assert digest_of_images(None) == ""


def test_values_may_be_separated_by_commas():
    assert split(["0.5, 1.0", "1.4"]) == ["0.5", "1.0", "1.4"]
    assert split(None) == []


def test_a_config_beside_the_checkpoint_belongs_to_the_point(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"x")
    point = Point(model="v2", weights=str(weights))
    before = point.identity({})
    assert point.checkpoint_files() == [weights]
    (tmp_path / "config.json").write_text("{}")
    assert point.checkpoint_files() == [weights, tmp_path / "config.json"]
    assert point.identity({}) != before
    assert Point(model="v2", weights="imagenet").checkpoint_files() == []
