"""V1's table as pairs of layers."""

import pytest

from mobiledeploy.errors import UsageError
from mobiledeploy.models.build import create
from mobiledeploy.models.config import load_config, read_config
from mobiledeploy.models.mobilenet_v1 import ROWS

PAPER = """
num_classes: 10
model_architecture: [
  [[32, 3, 1], [64, 1, 1]],
  [[64, 3, 2], [128, 1, 1]],
  [[128, 3, 1], [128, 1, 1]],
  [[128, 3, 2], [256, 1, 1]],
  [[256, 3, 1], [256, 1, 1]],
  [[256, 3, 2], [512, 1, 1]],
  [5, [512, 3, 1], [512, 1, 1]],
  [[512, 3, 2], [1024, 1, 1]],
  [[1024, 3, 1], [1024, 1, 1]],
]
"""


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "model.yaml").write_text(text)
        return load_config(tmp_path / "model.yaml")

    return read


@pytest.mark.parametrize("family", ["", "family: v1"])
def test_the_papers_table_is_the_papers_network(read, family):
    spec = read(family + PAPER)
    assert (spec.family, spec.num_classes) == ("v1", 10)
    assert spec.architecture.rows == tuple(map(tuple, ROWS))
    assert set(spec.architecture.changed) == {"rows"}


def shapes(module):
    return [tuple(each.shape) for each in module.state_dict().values()]


def test_pairs_and_rows_give_the_same_network(read):
    pairs = read(
        "model_architecture: [[16, 3, 1], [[16, 3, 2], [24, 1, 1]], [2, [24,3,1], [24,1,1]]]"
    )
    options = "stem_width: 16, stem_stride: 1, rows: [[24, 2], [24, 1], [24, 1]]"
    assert pairs == read(f"family: v1\narchitecture: {{{options}}}")
    assert shapes(create(pairs))[0] == (16, 3, 3, 3)


def test_the_first_depthwise_layer_tells_the_width_of_the_first_convolution(read):
    options = read("model_architecture: [[[24, 3, 2], [48, 1, 1]]]").architecture
    assert options.changed == {"stem_width": 24, "rows": ((48, 2),)}


def test_options_beside_the_table_are_kept(read):
    text = "model_architecture: [[[32, 3, 1], [64, 1, 1]]]\narchitecture: {activation: relu}"
    assert read(text).architecture.changed == {"activation": "relu", "rows": ((64, 1),)}


def test_the_family_of_the_table_must_be_the_requested_one(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(PAPER)
    assert read_config(path, "v1")["family"] == "v1"
    with pytest.raises(UsageError, match="describes a v1; requested was v2"):
        read_config(path, "v2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "model_architecture is 5; expected a list of pairs"),
        ("[]", "expected a list of pairs"),
        ("[[32, 3, 2]]", "rows is "),
        ("[[32, 5, 2], [[32, 3, 1], [64, 1, 1]]]", "kernel of the first convolution is 5"),
        ("[[[32, 3, 1]]]", r"entry 1 is \[\[32, 3, 1\]\]; expected \[\[filters"),
        ("[[[32, 3, 1], [64, 1]]]", "entry 1 is "),
        ("[[0, [32, 3, 1], [32, 1, 1]]]", "entry 1 is "),
        ("[[1000000000, [32, 3, 1], [32, 1, 1]]]", "entry 1 is "),
        ("[[[32, 3, 1], [64, 1, 1]], [64, 3, 1]]", "entry 2 is "),
        ("[[[32, 5, 1], [64, 1, 1]]]", "entry 1: the depthwise kernel is 5; expected 3, as V1"),
        ("[[[32, 3, 1], [64, 3, 1]]]", "entry 1: the pointwise kernel is 3; expected 1"),
        ("[[[32, 3, 1], [64, 1, 2]]]", "entry 1: the pointwise stride is 2; expected 1"),
        ("[[[32, 3, 1], [64, 1, 1]], [[32, 3, 1], [64, 1, 1]]]", "entry 2: the number .* is 32;"),
        ("[[2, [32, 3, 1], [64, 1, 1]]]", "depthwise filters is 32; expected 64"),
        ("[[[32, 3, 3], [64, 1, 1]]]", "row 1, column s is 3"),
        ("[[[32, 3, 1], [64, 1, 1]]]\nfamily: v2", "describes a v1; family is 'v2'"),
        ("[[[32, 3, 1], [64, 1, 1]]]\narchitecture: {rows: [[64, 1]]}", "architecture.rows descr"),
    ],
)
def test_a_table_that_v1_does_not_have_is_refused(read, text, message):
    with pytest.raises(UsageError, match=message) as refused:
        read(f"model_architecture: {text}")
    assert refused.value.message.count("model.yaml") == 1
