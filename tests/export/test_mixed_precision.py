"""Mixed precision: the runtimes compute the kept layers in float, as the reference does."""

import functools
import json

import networks
import numpy as np
import onnx
import pytest

from mobiledeploy.artifact.manifest import parse_manifest, write_manifest
from mobiledeploy.export.write import (
    artifact_name,
    export_executorch,
    export_onnx,
    export_tflite,
)
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.fused_ops import find_fused_ops
from mobiledeploy.inspect.inspect_artifact import inspect_artifact
from mobiledeploy.metrics import sqnr_db
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.runtimes.open import open_runner
from mobiledeploy.stages import QuantRecipe

IMAGES = networks.pixels(32, count=7, seed=1)
EXPORTERS = {"onnx": export_onnx, "pte": export_executorch, "tflite": export_tflite}
BETWEEN = ("features.1.conv.0.0",)  # quantized input and output
RESIDUAL = ("features.2.conv.2", "features.3.conv.2")  # the addition that follows is float too
ENDS = ("features.0.0", "features.1.conv.0.0", "features.4.0", "classifier.1")
SQUEEZE = ("features.1.block.1.fc1",)
GATED = ("features.1.block.0.0", "features.1.block.1.fc2")
HARDSWISH = ("features.2.block.0.0",)


@functools.cache
def mixed(family, kept, **options):
    model = networks.equalized(family, short=True, **options)
    recipe = networks.recipe_for(model, range_rule="minmax", float_layers=kept)
    return quantize(model, networks.calibration(32), recipe)


@pytest.mark.ci
@pytest.mark.parametrize(
    ("format_", "family", "kept", "options"),
    [
        ("onnx", "v2", BETWEEN, {}),
        ("onnx", "v2", RESIDUAL, {}),
        ("onnx", "v2", ENDS, {}),
        ("onnx", "v2", ("features.2.conv.1.0",), {"padding": "same"}),
        pytest.param("onnx", "v3-small", SQUEEZE, {}, marks=pytest.mark.ci),
        pytest.param("onnx", "v3-small", GATED, {}, marks=pytest.mark.ci),
        ("onnx", "v3-small", HARDSWISH, {}),
        ("pte", "v2", ENDS, {}),
        ("tflite", "v2", ENDS, {}),
        ("tflite", "v2", RESIDUAL, {}),
        ("tflite", "v3-small", SQUEEZE, {}),
        ("tflite", "v3-small", GATED, {}),
        ("tflite", "v3-small", HARDSWISH, {}),
        pytest.param("pte", "v3-small", GATED, {}, marks=pytest.mark.ci),
    ],
)
def test_the_runtimes_compute_float_layers_as_the_reference_does(
    tmp_path, format_, family, kept, options
):
    model = mixed(family, kept, **options)
    expected = IntegerReference(model).run({"input": IMAGES})["logits"]
    assert len(np.unique(expected, axis=0)) == len(IMAGES)
    artifact = EXPORTERS[format_](model, tmp_path / artifact_name(model, format_))
    with open_runner(artifact.path) as runner:
        found = [runner.run({"input": image[None]})["logits"] for image in IMAGES]
    assert sqnr_db(expected, np.concatenate(found)) > 100
    islands = artifact.coverage.float_islands
    assert sum(island.macs > 0 for island in islands) == len(kept)
    assert artifact.coverage.macs_share < 1
    if format_ == "pte":
        (group,) = inspect_artifact(artifact.path).groups
        assert group.where == "delegate 0: XnnpackBackend"


def test_the_file_has_the_float_weights_of_a_float_layer(tmp_path):
    artifact = export_onnx(mixed("v2", BETWEEN), tmp_path / "a.onnx")
    floats = {
        tensor.name
        for tensor in onnx.load(artifact.path).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 4
    }
    assert floats == {"features.1.conv.0.0.weight"}


def test_the_logits_of_a_float_classifier_have_no_step():
    reference = IntegerReference(mixed("v2", ENDS))
    assert reference.logit_step is None
    assert not reference.exact
    integers = IntegerReference(networks.quantized("v2", short=True))
    assert integers.logit_step is not None
    assert integers.exact


def test_names_identify_the_float_layers():
    names = {artifact_name(mixed("v2", kept), "pte") for kept in (BETWEEN, RESIDUAL, ENDS)}
    assert len(names) == 3
    assert "-int8-1float-" in artifact_name(mixed("v2", BETWEEN), "pte")
    assert artifact_name(networks.quantized("v2", short=True), "pte").endswith("-int8.pte")


def test_manifest_and_metadata_name_the_float_layers(tmp_path):
    model = mixed("v2", RESIDUAL)
    artifact = export_onnx(model, tmp_path / artifact_name(model, "onnx"))
    manifest = parse_manifest(write_manifest(artifact, model, None))
    assert manifest.recipe == model.recipe
    entries = {p.key: p.value for p in onnx.load(artifact.path).metadata_props}
    assert json.loads(entries["mobiledeploy.metadata"])["float_layers"] == list(RESIDUAL)


def test_a_manifest_from_before_mixed_precision_still_reads(tmp_path):
    model = networks.quantized("v2", short=True)
    artifact = export_onnx(model, tmp_path / artifact_name(model, "onnx"))
    path = write_manifest(artifact, model, None)
    document = json.loads(path.read_text())
    del document["recipe"]["float_layers"]
    path.write_text(json.dumps(document))
    assert parse_manifest(path).recipe == QuantRecipe(equalization="cross-layer")


def test_a_stem_in_float_keeps_its_padding(tmp_path):
    equalized = networks.equalized("v1", short=True, padding="same")
    stem = next(op.layer for op in find_fused_ops(trace(equalized)) if op.has_weight)
    model = mixed("v1", (stem,), padding="same")
    path = export_onnx(model, tmp_path / "mixed.onnx").path
    expected = IntegerReference(model).run({"input": IMAGES})["logits"]
    with open_runner(path) as runner:
        found = runner.run({"input": IMAGES})["logits"]
    assert sqnr_db(expected, found) > 30
