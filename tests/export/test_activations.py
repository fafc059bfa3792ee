"""Softmax, sigmoid and L2 normalisation behind the outputs: float, in every format."""

from dataclasses import replace

import networks
import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from scipy.special import expit, softmax
from torch import nn

from mobiledeploy.errors import ExportError, UsageError
from mobiledeploy.export.write import export_executorch, export_onnx, export_tflite
from mobiledeploy.export.xnnpack_passes.activate_outputs import _ranked
from mobiledeploy.network import OutputSpec
from mobiledeploy.parity.ladder import ACTIVATED, Check, Ladder
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.build_code import from_module
from mobiledeploy.pipeline.stages import run_stages
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import RECIPES
from mobiledeploy.utils.outputs import activated as with_activations

IMAGES = networks.pixels(32, count=6, seed=1)


def activated(activation, **options):
    int8 = networks.quantized("v1", short=True, **options)
    output = int8.info.outputs[0].with_activation(activation)
    return replace(int8, info=replace(int8.info, outputs=(output,)))


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("softmax", lambda x: softmax(x, axis=1)),
        ("sigmoid", expit),
        ("normalize", lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)),
    ],
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
    name = "embedding" if activation == "normalize" else "probabilities"
    assert list(found) == [name]
    expected = function(logits.astype(np.float64))
    assert np.ptp(expected) > 0.01
    assert np.abs(found[name] - expected).max() < ACTIVATED["max_max_abs_difference"]


@pytest.mark.parametrize(
    ("export", "element", "shift"),
    [
        (export_onnx, "uint8", 128),
        (export_tflite, "int8", 0),
        pytest.param(export_executorch, "int8", 0, marks=pytest.mark.ci),
    ],
)
def test_codes_are_the_integers_and_the_metadata_say_what_they_mean(
    export, element, shift, tmp_path
):
    model = activated("codes")
    (logits,) = IntegerReference(model).run({"input": IMAGES}).values()
    suffix = export.__name__.removeprefix("export_").replace("executorch", "pte")
    artifact = export(model, tmp_path / f"net.{suffix}")
    with open_runner(artifact.path) as runner:
        values = runner.run({"input": IMAGES})["codes"]
        (described,) = runner.metadata["outputs"]
    assert np.count_nonzero(values != logits) == 0
    assert artifact.coverage.elements_share == 1
    encoding = model.encodings[next(reversed(model.encodings))]
    assert described["element"] == element
    assert (described["scale"], described["zero_point"]) == (
        encoding.scale,
        encoding.zero_point + shift,
    )
    if suffix == "onnx":
        session = onnxruntime.InferenceSession(artifact.path)
        (codes,) = session.run(None, {"input": IMAGES})
        assert (codes.dtype, len(np.unique(codes)) > 5) == (np.uint8, True)
        steps = codes.astype(np.float32) - np.float32(described["zero_point"])
        assert np.count_nonzero(steps * np.float32(described["scale"]) != logits) == 0


@pytest.mark.parametrize("classes", [250, 1000])
@pytest.mark.parametrize(
    ("export", "element"),
    [
        (export_onnx, np.int64),
        (export_tflite, np.int32),
        pytest.param(export_executorch, np.int64, marks=pytest.mark.ci),
    ],
)
def test_the_five_largest_come_in_order_and_equal_ones_by_class(export, element, classes, tmp_path):
    model = activated("top5", classes=classes)
    (logits,) = IntegerReference(model).run({"input": IMAGES}).values()
    suffix = export.__name__.removeprefix("export_").replace("executorch", "pte")
    artifact = export(model, tmp_path / f"net.{suffix}")
    with open_runner(artifact.path) as runner:
        tensors = [runner._run_batch(image[None]) for image in IMAGES]
        (dense,) = runner.run({"input": IMAGES}).values()
    found, probabilities = (np.concatenate(each) for each in zip(*tensors, strict=True))
    assert (found.dtype, probabilities.dtype) == (element, np.float32)
    expected = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert (np.diff(np.take_along_axis(logits, expected, axis=1)) == 0).any()
    np.testing.assert_array_equal(found, expected)
    exact = np.take_along_axis(softmax(logits.astype(np.float64), axis=1), expected, axis=1)
    assert np.abs(probabilities - exact).max() < 2e-6
    assert dense.shape == logits.shape
    assert (np.count_nonzero(dense, axis=1) == 5).all()
    np.testing.assert_array_equal(np.take_along_axis(dense, expected, axis=1), probabilities)


def test_ranks_stay_apart_as_far_as_float32_holds_them():
    step = 0.0371
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default
    value = graph.call_function(dequantize, (x, step, 3, -128, 127, torch.int8))
    module = torch.fx.GraphModule(torch.nn.Module(), graph)
    ranked = _ranked(module, value, OutputSpec(size=32_768))
    ranks = getattr(module, ranked.args[1].target)[0].numpy()
    for code in (-255, 0, 254):
        lower, upper = (np.float32(step) * np.float32(each) - ranks for each in (code, code + 1))
        assert (np.diff(lower) < 0).all()
        assert lower.max() < upper.min()
    with pytest.raises(ExportError, match=r"of at most 32,768 values; .* logits has 32,769"):
        _ranked(module, value, OutputSpec(size=32_769))


def test_a_float_network_has_no_codes(tmp_path):
    model = networks.folded("v1", short=True)
    output = model.info.outputs[0].with_activation("codes")
    model = replace(model, info=replace(model.info, outputs=(output,)))
    with pytest.raises(ExportError, match="not an int8 value"):
        export_onnx(model, tmp_path / "net.onnx")
    with pytest.raises(ExportError, match="computed in float"):
        export_tflite(model, tmp_path / "net.tflite")


@pytest.mark.ci
@pytest.mark.parametrize(
    ("export", "name"),
    [(export_onnx, "net.onnx"), (export_tflite, "net.tflite"), (export_executorch, "net.pte")],
)
def test_codes_of_a_last_layer_in_float_are_refused(export, name, tmp_path):
    equalized = networks.equalized("v2", short=True)
    recipe = networks.recipe_for(equalized, "fast", float_layers=("classifier.1",))
    model = quantize(equalized, networks.calibration(32), recipe)
    assert model.output_encodings == (None,)
    output = model.info.outputs[0].with_activation("codes")
    model = replace(model, info=replace(model.info, outputs=(output,)))
    with pytest.raises(ExportError, match=r"not an int8 value|computed in float"):
        export(model, tmp_path / name)


class Ends(nn.Module):
    """A network of several outputs, each with another end; `map` runs three times."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head, self.map = nn.Linear(8, 5), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        scores, map_ = self.head(x.mean([2, 3])), self.map(x)
        boxes = map_.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4)
        return {
            "scores": scores,
            "probabilities": F.softmax(scores, 1),
            "vector": F.normalize(scores),
            "mask": self.map(x).softmax(1),
            "dense": F.normalize(self.map(x)),
            "boxes": boxes.softmax(-1),
            "edges": torch.sigmoid(map_),
        }


@pytest.fixture(scope="module")
def ends():
    torch.manual_seed(0)
    model = from_module(Ends(), input_shape=(3, 32, 32))
    return run_stages(model, networks.calibration(32), RECIPES["fast"]).deployed


@pytest.mark.parametrize(
    "export",
    [export_onnx, export_tflite, pytest.param(export_executorch, marks=pytest.mark.ci)],
)
def test_a_module_may_end_in_activations(export, ends, tmp_path):
    reference = IntegerReference(ends).run({"input": IMAGES})
    suffix = export.__name__.removeprefix("export_").replace("executorch", "pte")
    artifact = export(ends, tmp_path / f"net.{suffix}")
    with open_runner(artifact.path) as runner:
        found = runner.run({"input": IMAGES})
        described = {each["name"]: each["activation"] for each in runner.metadata["outputs"]}
    assert list(found) == list(described) == [each.name for each in ends.info.outputs]
    assert np.count_nonzero(found["scores"] != reference["scores"]) == 0
    for output in ends.info.outputs:
        assert described[output.name] == output.activation
        values = reference[output.name].reshape(len(IMAGES), -1)
        expected = with_activations(values, (output,)).reshape(found[output.name].shape)
        assert np.ptp(expected) > 0.01
        assert np.abs(found[output.name] - expected).max() < 2e-6, output.name


def test_the_shape_and_the_end_of_an_output_give_its_task(ends):
    found = {each.name: (each.task, each.activation) for each in ends.info.outputs}
    assert found == {
        "scores": ("classes", "none"),
        "probabilities": ("classes", "softmax"),
        "vector": ("embedding", "normalize"),
        "mask": ("map", "softmax"),
        "dense": ("map", "normalize"),
        "boxes": ("regression", "softmax"),
        "edges": ("map", "sigmoid"),
    }


def test_one_output_is_called_after_its_activation():
    for end, name in ((nn.Softmax(1), "probabilities"), (F.normalize, "embedding")):
        network = type("Net", (nn.Module,), {"forward": lambda _, x, end=end: end(x.mean([2, 3]))})
        (output,) = from_module(network(), input_shape=(3, 32, 32)).info.outputs
        assert output.name == name


def test_a_softmax_inside_is_refused_by_its_operator_module_and_line():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.inner = nn.Conv2d(3, 4, 3), nn.Softmax(1)

        def forward(self, x):
            return torch.softmax(self.inner(self.conv(x)).mean([2, 3]), 1)

    model = from_module(Inside(), input_shape=(3, 32, 32))
    expected = r"aten\.softmax\.int in module inner .*test_activations\.py, line \d+"
    with pytest.raises(ExportError, match=expected):
        run_stages(model, networks.calibration(32), RECIPES["fast"])


def test_an_activation_behind_one_of_the_modules_own_is_refused():
    network = type("Net", (nn.Module,), {"forward": lambda _, x: x.mean([2, 3]).softmax(1)})
    with pytest.raises(UsageError, match="probabilities ends in softmax already"):
        from_module(network(), input_shape=(3, 32, 32), activation="softmax")


def test_parity_demands_every_bit_of_outputs_without_an_activation():
    outputs = (OutputSpec(size=2, name="raw"), OutputSpec(size=3).with_activation("sigmoid"))
    logits = np.random.default_rng(0).normal(size=(8, 5)).astype(np.float32)
    for index, passes in ((1, False), (4, True)):
        ladder = Ladder(labels=None, step=None, outputs=outputs)
        ladder.add("integers", logits)
        artifact = with_activations(logits, outputs)
        artifact[3, index] = np.nextafter(artifact[3, index], np.float32(9))
        ladder.add("onnx", artifact, [Check("integers", ACTIVATED)], artifact="net.onnx")
        assert ladder.rungs[1].passed is passes


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
