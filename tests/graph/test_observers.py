"""Observers record the extremes of activations per image and channel."""

import networks
import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.errors import DataError
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.graph.observers import Recorder, observe
from mobiledeploy.stages import CalibrationSet


def model_of(after):
    """Return a model of a convolution and another module, for images of 8x8."""
    return networks.model_of(nn.Sequential(nn.Conv2d(3, 4, 1), after), 8)


def calibration_of(images):
    return CalibrationSet(images=images, source="", sha256="")


def test_extremes_are_per_image_and_channel():
    model = model_of(nn.ReLU())
    traced = trace(model)
    (source,) = traced.graph.find_nodes(op="placeholder")
    (op,) = find_fused_ops(traced)
    images = np.random.default_rng(0).normal(size=(7, 3, 8, 8)).astype(np.float32)
    stats = observe(traced, [source, op.output], calibration_of(images))
    np.testing.assert_array_equal(stats[source.name].minima, images.min((2, 3)))
    np.testing.assert_array_equal(stats[source.name].maxima, images.max((2, 3)))
    with torch.no_grad():
        after = model.module(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(stats[op.output.name].maxima, after.max((2, 3)), rtol=1e-5)
    assert stats[op.output.name].minima.shape == (7, 4)


def test_an_empty_calibration_set_is_refused():
    traced = trace(model_of(nn.ReLU()))
    with pytest.raises(DataError, match="calibration set is empty"):
        observe(traced, [], calibration_of(np.zeros((0, 3, 8, 8), np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_activation_that_is_not_finite_is_refused_by_name(value):
    traced = trace(model_of(nn.Identity()))
    (op,) = find_fused_ops(traced)
    images = np.zeros((2, 3, 8, 8), np.float32)
    images[1, 0, 0, 0] = value
    with pytest.raises(DataError, match=f"{op.output.name} is infinite or NaN"):
        observe(traced, [op.output], calibration_of(images))


def test_a_recorder_keeps_what_it_is_asked_to():
    traced = trace(model_of(nn.ReLU()))
    (op,) = find_fused_ops(traced)
    recorder = Recorder(traced, [op.output], keep=lambda value: tuple(value.shape))
    recorder.run(torch.zeros(5, 3, 8, 8))
    assert recorder.records == {op.output: (5, 4, 8, 8)}
