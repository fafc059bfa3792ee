"""Of several outputs, evaluate counts the classes of one, and diff compares numbers."""

from dataclasses import replace
from types import SimpleNamespace

import networks
import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.diff.outputs import _task_of
from mobiledeploy.errors import UsageError
from mobiledeploy.network import OutputSpec, Preprocessing
from mobiledeploy.pipeline.build_code import from_module
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.pipeline.evaluate import _network, evaluate_artifacts

OUTPUTS = (OutputSpec(name="kind", size=3), OutputSpec(name="age", size=1, task="regression"))


class Runner:
    """Returns an age that is larger than every score."""

    runtime, version = "none", "1"

    def run(self, inputs):
        (images,) = inputs.values()
        scores = np.eye(3, dtype=np.float32)[: len(images)]
        return {"kind": scores, "age": np.full((len(images), 1), 99, np.float32)}


class Heads(nn.Module):
    """Two outputs of classes, and an age between them."""

    def __init__(self):
        super().__init__()
        self.kind, self.age, self.pose = (nn.Linear(3, size) for size in (3, 1, 2))

    def forward(self, x):
        x = x.mean([2, 3])
        return {"kind": self.kind(x), "age": self.age(x), "pose": self.pose(x)}


def pixels_of(images):
    """Return normalised images as pixels, (N, H, W, C)."""
    given = Preprocessing()
    mean, std = (np.array(values)[:, None, None] for values in (given.mean, given.std))
    return np.rint(255 * (images * std + mean)).astype(np.uint8).transpose(0, 2, 3, 1)


def exported_heads(folder):
    """Return an artifact of `Heads` and a function that computes its outputs."""
    torch.manual_seed(0)
    module = Heads()
    model = from_module(module, input_shape=(3, 32, 32))
    done = deploy(model, formats=("onnx",), calibration=None, parity=False, out=folder / "out")

    def expected(images):
        with torch.no_grad():
            return {name: y.numpy() for name, y in module(torch.from_numpy(images)).items()}

    return done.artifacts[0].path, expected


def test_evaluate_counts_the_first_output():
    info = replace(networks.folded("v1", short=True).info, outputs=OUTPUTS)
    network = _network("two", "c0ffee", Runner(), info)
    np.testing.assert_array_equal(network.run(networks.pixels(32, count=3)), np.eye(3))


def test_evaluate_counts_the_output_that_is_named(tmp_path):
    images = networks.pixels(32, count=4)
    np.savez(tmp_path / "images.npz", images=pixels_of(images), labels=np.array([0, 1, 1, 0]))
    artifact, expected = exported_heads(tmp_path)
    for name, classes in (("kind", 3), ("pose", 2)):
        result = evaluate_artifacts([artifact], tmp_path / "images.npz", output=name)
        guesses = expected(images)[name].argmax(1)
        assert result.output == name
        assert expected(images)[name].shape == (4, classes)
        assert result.networks[0].counts.top1 == np.count_nonzero(guesses == [0, 1, 1, 0])
    assert evaluate_artifacts([artifact], tmp_path / "images.npz").output == "kind"
    with pytest.raises(UsageError, match="has no output 'x'; it has kind, age, pose"):
        evaluate_artifacts([artifact], tmp_path / "images.npz", output="x")
    with pytest.raises(UsageError, match=r"The output age .* is no classes") as refused:
        evaluate_artifacts([artifact], tmp_path / "images.npz", output="age")
    assert refused.value.remedy == "Pass --output kind."


def test_diff_compares_several_outputs_without_classes():
    for outputs, task in ((OUTPUTS, "boxes"), (OUTPUTS[:1], "classes")):
        info = replace(networks.folded("v1", short=True).info, outputs=outputs)
        assert _task_of(SimpleNamespace(manifest=SimpleNamespace(info=info))) == task
