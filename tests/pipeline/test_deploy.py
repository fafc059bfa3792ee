"""`deploy`: the images of the parity check, and what a failed gate leaves behind."""

import json
from dataclasses import replace

import networks
import planted
import pytest
import torch
from torch import nn

from mobiledeploy.artifact.manifest import read_manifest
from mobiledeploy.errors import DataError, GateError, UsageError
from mobiledeploy.network import WeightsProvenance
from mobiledeploy.pipeline import deploy as _deploy
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.deploy import _parity_images, deploy
from mobiledeploy.quantization.mixed_precision import MixedPrecision
from mobiledeploy.stages import QuantRecipe
from mobiledeploy.utils.files import sha256_of

NAME = "mobilenet_v1_0.25_32-2classes-random-int8"
FAST = QuantRecipe(equalization="cross-layer", rounding="nearest")


def test_codes_of_a_float_network_are_refused_before_the_export(tmp_path):
    fields = {"width": 0.25, "resolution": 32, "num_classes": 6}
    model = build("v1", weights="random", activation="codes", **fields)
    with pytest.raises(UsageError, match="needs an int8 network"):
        deploy(model, formats=("onnx",), calibration=None, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_parity_images_are_spread_over_the_calibration_set():
    """The first ones may all be of one class."""
    images = replace(networks.calibration(32, 96), names=tuple(map(str, range(96))))
    checked = _parity_images(None, images)
    assert checked.names == tuple(map(str, range(0, 96, 3)))
    assert (checked.images == images.images[::3]).all()


@pytest.fixture(scope="module")
def two_channel_network():
    return build("v1", weights="random", width=0.25, resolution=32, num_classes=2, in_channels=2)


def test_a_float_network_that_the_bundled_images_do_not_fit_is_refused_before_the_export(
    two_channel_network, tmp_path, monkeypatch
):
    monkeypatch.setattr(_deploy, "run_stages", None)
    with pytest.raises(DataError, match=r"cannot check the artifacts: .*2 channels") as error:
        deploy(two_channel_network, formats=["onnx"], calibration=None, out=tmp_path)
    assert "--no-parity" in error.value.remedy


def test_without_parity_it_is_exported(two_channel_network, tmp_path):
    done = deploy(
        two_channel_network, formats=["onnx"], calibration=None, out=tmp_path, parity=False
    )
    assert done.artifacts[0].path.is_file()
    done.require_passed()


def with_head(classes, weight, bias, task=None):
    """Return a network with a classifier that is known, as if it had been trained."""
    model = build("v1", weights="random", width=0.25, resolution=32, num_classes=classes, task=task)
    head = [layer for layer in model.module.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        head.weight.mul_(weight)
        head.bias.copy_(torch.as_tensor(bias, dtype=torch.float32).expand(classes))
    trained = WeightsProvenance(source="file", origin="age.pth")
    return replace(model, info=replace(model.info, provenance=trained))


@pytest.fixture
def deployed(tmp_path, monkeypatch):
    """A function that deploys a network whose BatchNorms do not remember these images."""
    monkeypatch.setattr(_deploy, "_training_match", lambda *_, **__: None)
    images = networks.calibration(32, 40)
    return lambda model: deploy(
        model, formats=["onnx"], calibration=images, recipe=FAST, out=tmp_path
    )


@pytest.mark.ci
@pytest.mark.parametrize(("weight", "bias"), [(0, 40), (0, 0)])
@pytest.mark.parametrize("classes", [1, 3])
def test_outputs_that_ignore_the_image_fail(deployed, weight, bias, classes):
    """They agree with anything: int8 computes a constant to within its rounding."""
    done = deployed(with_head(classes, weight, bias))
    with pytest.raises(GateError, match="outputs are the same for all 32 images"):
        done.require_passed()
    assert not any(
        "sqnr_db" in comparison.metrics for r in done.parity.rungs for comparison in r.comparisons
    )


@pytest.mark.ci
def test_a_bias_that_dwarfs_what_varies_does_not_pass_for_signal(deployed):
    """Where outputs vary by less than a step of the int8 logits, all of it is lost."""
    done = deployed(with_head(3, 1e-3, [1000, 2000, 3000], "regression"))
    with pytest.raises(GateError, match="SQNR is -"):
        done.require_passed()


@pytest.mark.ci
def test_a_regression_is_judged_by_its_sqnr_alone(deployed):
    """A random network loses more than it may; nothing else is held against it."""
    done = deployed(with_head(1, 1, 40))
    (failed,) = [rung for rung in done.parity.rungs if not rung.passed]
    assert [text.split(":")[1][:8] for text in failed.failures] == [" SQNR is"]
    (onnx,) = [rung for rung in done.parity.rungs if rung.name == "onnx"]
    (integers,) = [rung for rung in done.parity.rungs if rung.name == "integers"]
    assert set(integers.against("float").limits) == {"min_sqnr_db"}
    assert onnx.against("integers").metrics["differing_logits"] == 0
    assert "top1_agreement" not in onnx.against("float").metrics


def test_an_empty_name_of_weights_is_refused():
    """A script may pass an unset variable."""
    with pytest.raises(UsageError, match="name of the weights is empty"):
        build("v2", weights="")


def test_an_unknown_format_is_refused(two_channel_network, tmp_path):
    with pytest.raises(UsageError, match="no format 'coreml'"):
        deploy(two_channel_network, formats=["coreml"], calibration=None, out=tmp_path)


@pytest.fixture(scope="module")
def network():
    return build("v1", weights="random", width=0.25, resolution=32, num_classes=2)


def export(network, out, **options):
    """Export int8 ONNX quickly."""
    images = networks.calibration(32)
    return deploy(network, formats=["onnx"], calibration=images, recipe=FAST, out=out, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_failed_gate_keeps_the_earlier_artifact(network, tmp_path, monkeypatch):
    first = export(network, tmp_path)
    assert (first.failure, first.kept) == (None, ())
    earlier = contents(tmp_path)
    assert sorted(earlier) == [f"{NAME}.onnx", f"{NAME}.onnx.json"]

    def export_with_a_fault(model, file_format, path):
        artifact = exported(model, file_format, path)
        planted.plant(path, path, planted.perturbed_weight(3, count=None))
        return replace(artifact, sha256=sha256_of(path))

    exported = _deploy.export
    monkeypatch.setattr(_deploy, "export", export_with_a_fault)
    done = export(network, tmp_path)
    left = contents(tmp_path)
    assert {name: left[name] for name in earlier} == earlier
    assert sorted(left.keys() - earlier.keys()) == [
        f"{NAME}.failed.onnx",
        f"{NAME}.failed.onnx.json",
    ]
    assert done.kept == (tmp_path / f"{NAME}.onnx",)
    assert [artifact.path.name for artifact in done.artifacts] == [f"{NAME}.failed.onnx"]
    assert [path.name for path in done.manifests] == [f"{NAME}.failed.onnx.json"]
    with pytest.raises(GateError, match=r"Parity failed.*\.failed\.onnx"):
        done.require_passed()

    other = tmp_path / f"{NAME}.failed.pte"
    other.touch()  # of a format that is not exported again
    monkeypatch.setattr(_deploy, "export", exported)
    assert export(network, tmp_path).failure is None
    assert sorted(contents(tmp_path)) == sorted([*earlier, other.name])


def test_a_failed_artifact_that_cannot_be_removed_is_a_warning(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(_deploy, "warn", messages.append)
    (tmp_path / "net.failed.onnx").mkdir()
    (tmp_path / "net.failed.onnx.json").touch()
    _deploy._remove_failed([tmp_path / "net.onnx", tmp_path / "net.pte"])
    assert [path.name for path in tmp_path.iterdir()] == ["net.failed.onnx"]
    (message,) = messages
    assert "net.failed.onnx, of an earlier export that failed, could not be removed" in message


@pytest.mark.ci
def test_the_failed_artifact_has_a_manifest_of_its_own(network, tmp_path):
    done = export(network, tmp_path, min_int8_coverage=1.1)
    (artifact,) = done.artifacts
    assert artifact.path.name == f"{NAME}.failed.onnx"
    manifest = read_manifest(artifact.path)
    assert manifest.artifact.file == artifact.path.name
    assert manifest.parity.passed
    assert "sqnr_db" in manifest.parity.against_float(artifact.path.name)
    assert done.kept == ()
    assert sorted(contents(tmp_path)) == [f"{NAME}.failed.onnx", f"{NAME}.failed.onnx.json"]
    assert json.loads(done.manifests[0].read_text())["parity"]["artifacts"][0]["file"] == (
        artifact.path.name
    )


@pytest.mark.ci
def test_the_coverage_gate_fails_without_parity_too(network, tmp_path):
    layer = MixedPrecision(count=1)
    done = export(network, tmp_path, parity=False, mixed_precision=layer, min_int8_coverage=1.0)
    assert done.parity is None
    with pytest.raises(GateError, match=r"failed\.onnx computes .* of its multiply-accumulates"):
        done.require_passed()
    assert (
        export(
            network, tmp_path, parity=False, mixed_precision=layer, min_int8_coverage=0.1
        ).failure
        is None
    )
