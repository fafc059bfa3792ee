"""Options of the commands that build a network."""

import pytest

from mobiledeploy.cli.model_options import check_model, parse_model_arguments
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
