"""Writing artifacts: reproducible bytes, their record, their metadata, their names."""

import hashlib

import networks
import pytest

from mobiledeploy.export.write import artifact_name, export_executorch, export_onnx
from mobiledeploy.inspect.inspect_artifact import inspect_artifact
from mobiledeploy.runtimes.open import open_runner

EXPORTERS = {"onnx": export_onnx, "pte": export_executorch}
BOTH_FORMATS = pytest.mark.parametrize("format_", ["onnx", "pte"])


@pytest.mark.ci
@BOTH_FORMATS
def test_the_same_network_gives_the_same_bytes(exported_to, tmp_path, format_):
    first = exported_to(format_, "v2")
    again = EXPORTERS[format_](networks.quantized("v2", short=True), tmp_path / f"again.{format_}")
    assert again.path.read_bytes() == first.path.read_bytes()
    assert again.sha256 == first.sha256


@BOTH_FORMATS
def test_the_record_describes_the_file(exported_to, format_):
    model, artifact = networks.quantized("v2", short=True), exported_to(format_, "v2")
    data = artifact.path.read_bytes()
    assert artifact.size_bytes == len(data)
    assert artifact.sha256 == hashlib.sha256(data).hexdigest()
    assert (artifact.format, artifact.precision) == (format_, "int8")
    assert artifact.encodings_digest == model.encodings_digest
    assert {"torch", "executorch", "onnx", "mobiledeploy"} <= set(artifact.tool_versions)


@BOTH_FORMATS
@pytest.mark.parametrize("precision", ["int8", "fp32"])
def test_preprocessing_and_labels_are_inside_the_artifact(exported_to, format_, precision):
    with open_runner(exported_to(format_, "v2", precision=precision).path) as runner:
        metadata, labels = runner.metadata, runner.labels
    assert labels == networks.LABELS
    assert metadata["precision"] == precision
    assert metadata["family"] == "v2"
    assert metadata["input"] == {
        "name": "input",
        "layout": "NCHW",
        "channels": 3,
        "resize_short_side": 37,  # 32 / 0.875, rounded
        "center_crop": 32,
        "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    assert metadata["output"] == {"name": "logits", "classes": 10}
    digest = networks.quantized("v2", short=True).encodings_digest
    assert metadata["encodings_sha256"] == (digest if precision == "int8" else "")


def test_both_formats_have_the_same_metadata(exported_to):
    with (
        open_runner(exported_to("onnx", "v2").path) as one,
        open_runner(exported_to("pte", "v2").path) as other,
    ):
        assert one.metadata == other.metadata
        assert one.labels == other.labels


@pytest.mark.ci
def test_names_contain_network_precision_and_format():
    assert artifact_name(networks.quantized("v2"), "pte") == (
        "mobilenet_v2_0.25_32-10classes-random-int8.pte"
    )
    assert artifact_name(networks.folded("v1"), "onnx") == (
        "mobilenet_v1_0.25_32-10classes-random-fp32.onnx"
    )


@pytest.mark.parametrize(
    ("resolution", "precision", "copied"),
    [(32, "int8", False), (32, "fp32", False), (33, "fp32", True)],
)
def test_a_pte_copies_the_image_only_if_vectors_would_read_past_its_end(
    exported_to, resolution, precision, copied
):
    artifact = exported_to("pte", "v2", resolution, precision=precision)
    planned = inspect_artifact(artifact.path).planned_memory_bytes
    assert (planned >= 4 * 3 * resolution**2) is copied
