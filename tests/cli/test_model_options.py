"""Options of the commands that build a network."""

import pytest

from mobiledeploy.cli.model_options import check_model, parse_model_arguments, split_outputs
from mobiledeploy.errors import UsageError


def test_arguments_for_code_have_the_types_of_yaml():
    texts = ["width=0.5", "classes=3", "pretrained=false", "name=a=b", "weights=null", "empty="]
    assert parse_model_arguments(texts) == {
        "width": 0.5,
        "classes": 3,
        "pretrained": False,
        "name": "a=b",
        "weights": None,
        "empty": "",
    }
    assert parse_model_arguments(None) is None


@pytest.mark.parametrize("text", ["width", "=3", "a-b=3", "sizes=[1, 2]"])
def test_other_arguments_are_refused(text):
    with pytest.raises(UsageError, match="expected NAME=VALUE with a single value"):
        parse_model_arguments([text])


def test_arguments_are_for_code_only():
    check_model("net.py:create", {"width": 0.5})
    with pytest.raises(UsageError, match="--model-arg is for a network from code"):
        check_model("v2", {"width": 0.5})
    with pytest.raises(UsageError, match="There is no model 'v5'"):
        check_model("v5", None)
    with pytest.raises(UsageError, match=r"There is no model 'net\.py'") as refused:
        check_model("net.py", None)
    assert "for example net.py:create" in refused.value.remedy


@pytest.mark.parametrize(
    ("outputs", "activation", "expected"),
    [
        (None, None, (None, None)),
        (None, "sigmoid", (None, "sigmoid")),
        (["logits"], None, (None, "none")),
        (["probabilities"], None, (None, "softmax")),
        (["top5"], None, (None, "top5")),
        (["codes"], None, (None, "codes")),
        (["codes:regression"], None, (["codes:regression"], None)),
        (["logits", "boxes"], None, (["logits", "boxes"], None)),
        (["age"], "sigmoid", (["age"], "sigmoid")),
    ],
)
def test_output_says_what_is_returned_or_what_the_outputs_are(outputs, activation, expected):
    found = split_outputs(outputs, activation, of_code=True)
    assert (found["outputs"], found["activation"]) == expected


def test_output_and_activation_do_not_both_say_what_is_returned():
    with pytest.raises(UsageError, match="--output top5 and --activation softmax both say"):
        split_outputs(["top5"], "softmax", of_code=True)


@pytest.mark.parametrize("outputs", [["a,b"], ["age:regression"], ["logits", "codes"]])
def test_outputs_of_a_family_are_not_named(outputs):
    with pytest.raises(UsageError, match="expected one of logits, probabilities, top5, codes"):
        split_outputs(outputs, None, of_code=False)
    assert split_outputs(None, None, of_code=False) == {"outputs": None, "activation": None}
    assert split_outputs(["codes"], None, of_code=False)["activation"] == "codes"
