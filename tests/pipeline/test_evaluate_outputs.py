"""Of several outputs, evaluate counts the classes of the first, and diff compares numbers."""

from dataclasses import replace
from types import SimpleNamespace

import networks
import numpy as np

from mobiledeploy.diff.outputs import _task_of
from mobiledeploy.network import OutputSpec
from mobiledeploy.pipeline.evaluate import _network

OUTPUTS = (OutputSpec(name="kind", size=3), OutputSpec(name="age", size=1, task="regression"))


class Runner:
    """Returns an age that is larger than every score."""

    runtime, version = "none", "1"

    def run(self, inputs):
        (images,) = inputs.values()
        scores = np.eye(3, dtype=np.float32)[: len(images)]
        return {"kind": scores, "age": np.full((len(images), 1), 99, np.float32)}


def test_evaluate_counts_the_first_output():
    info = replace(networks.folded("v1", short=True).info, outputs=OUTPUTS)
    network = _network("two", "c0ffee", Runner(), info)
    np.testing.assert_array_equal(network.run(networks.pixels(32, count=3)), np.eye(3))


def test_diff_compares_several_outputs_without_classes():
    for outputs, task in ((OUTPUTS, "boxes"), (OUTPUTS[:1], "classes")):
        info = replace(networks.folded("v1", short=True).info, outputs=outputs)
        assert _task_of(SimpleNamespace(manifest=SimpleNamespace(info=info))) == task
