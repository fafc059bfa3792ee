"""Softmax and sigmoid behind the logits: in float, in every format, and compared as such."""

from dataclasses import replace

import networks
import numpy as np
import pytest
from scipy.special import expit, softmax

from mobiledeploy.errors import UsageError
from mobiledeploy.export.write import export_executorch, export_onnx, export_tflite
from mobiledeploy.network import OutputSpec
from mobiledeploy.parity.ladder import ACTIVATED, Check, Ladder
from mobiledeploy.pipeline.build import build
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.runtimes.open import open_runner

IMAGES = networks.pixels(32, count=6, seed=1)


def activated(activation):
    int8 = networks.quantized("v1", short=True)
    output = int8.info.outputs[0].with_activation(activation)
    return replace(int8, info=replace(int8.info, outputs=(output,)))


@pytest.mark.parametrize(
    ("activation", "function"), [("softmax", lambda x: softmax(x, axis=1)), ("sigmoid", expit)]
)
@pytest.mark.parametrize(
    "export",
    [export_onnx, export_tflite, pytest.param(export_executorch, marks=pytest.mark.ci)],
)
def test_an_artifact_computes_probabilities_of_the_references_logits(
    export, activation, function, tmp_path
):
    model = activated(activation)
    (logits,) = IntegerReference(model).run({"input": IMAGES}).values()
    suffix = export.__name__.removeprefix("export_").replace("executorch", "pte")
    artifact = export(model, tmp_path / f"net.{suffix}")
    with open_runner(artifact.path) as runner:
        found = runner.run({"input": IMAGES})
        assert runner.metadata["outputs"][0]["activation"] == activation
    assert list(found) == ["probabilities"]
    expected = function(logits.astype(np.float64))
    assert np.ptp(expected) > 0.01
    assert np.abs(found["probabilities"] - expected).max() < ACTIVATED["max_max_abs_difference"]


def test_parity_compares_probabilities_with_the_activated_logits():
    logits = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    outputs = (OutputSpec(size=5).with_activation("softmax"),)
    for shift, passes in ((0.0, True), (1e-3, False)):
        ladder = Ladder(labels=None, step=None, outputs=outputs)
        ladder.add("integers", logits)
        probabilities = softmax(logits.astype(np.float64), axis=1).astype(np.float32)
        probabilities[3, 2] += shift
        ladder.add("onnx", probabilities, [Check("integers", ACTIVATED)], artifact="net.onnx")
        assert ladder.rungs[1].passed is passes


@pytest.mark.parametrize(
    ("classes", "activation", "text"),
    [(1, "softmax", "needs two outputs or more"), (3, "tanh", "'tanh' is no activation")],
)
def test_an_activation_that_makes_no_sense_is_refused(classes, activation, text):
    with pytest.raises(UsageError, match=text):
        build("v1", weights="random", num_classes=classes, activation=activation)


def test_the_activation_is_part_of_the_name_and_of_the_specification():
    info = build(
        "v1", weights="random", width=0.25, resolution=32, num_classes=3, activation="sigmoid"
    ).info
    assert info.name.endswith("-sigmoid")
    assert (
        networks.spec_of(networks.described(networks.folded("v1"), spec=None)).activation == "none"
    )
    assert info.source["activation"] == "sigmoid"
    assert info.outputs[0].name == "probabilities"
