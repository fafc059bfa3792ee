"""Fields of what artifacts were made from are compared, and shown in words."""

from dataclasses import asdict

from mobiledeploy.diff.inputs import _changes
from mobiledeploy.network import OutputSpec


def test_outputs_are_shown_by_their_fields_without_those_that_are_empty():
    age = asdict(OutputSpec(size=1, task="regression", name="age"))
    places = asdict(OutputSpec(size=8, task="map", name="places", dimensions=(2, 2, 2)))
    (change,) = _changes({"outputs": (age,), "title": "net"}, {"outputs": [places], "title": "net"})
    assert change.field == "outputs"
    assert change.a == "size=1 task=regression name=age activation=none"
    assert change.b == "size=8 task=map name=places dimensions=2, 2, 2 activation=none"
