"""`build` from a family name, a configuration file and weights, which must not contradict."""

import json
from pathlib import Path

import networks
import pytest
import safetensors.torch
import torch
from golden_state import golden_state

from mobiledeploy.artifact.manifest import read_manifest
from mobiledeploy.checkpoints.published import PUBLISHED
from mobiledeploy.cli import main
from mobiledeploy.errors import UsageError, WeightsError
from mobiledeploy.models.build import create
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec
from mobiledeploy.network import Preprocessing
from mobiledeploy.pipeline.build import build
from mobiledeploy.pipeline.check_parity import check_parity
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.pipeline.rebuild import rebuild_float
from mobiledeploy.runtimes.open import open_runner

ROWS = ((1, 16, 1, 2), (6, 24, 2, 2))
OPTIONS = ArchitectureOptions(rows=ROWS)
CONFIG = "family: v2\nresolution: 32\narchitecture: {rows: [[1, 16, 1, 2], [6, 24, 2, 2]]}\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    """Weights of the network in `config` with another width and seven classes."""
    spec = ModelSpec(family="v2", width=0.5, num_classes=7, architecture=OPTIONS)
    path = tmp_path / "mine.pth"
    torch.save(create(spec).state_dict(), path)
    return path


def test_arguments_override_the_configuration_file(config):
    built = build(config=config, weights="random", resolution=64, num_classes=5)
    assert networks.spec_of(built) == ModelSpec(
        family="v2", resolution=64, num_classes=5, weights="random", architecture=OPTIONS
    )


def test_a_checkpoint_sets_the_fields_that_the_file_leaves_out(config, checkpoint):
    built = build(config=config, weights=str(checkpoint))
    assert (
        networks.spec_of(built).width,
        networks.spec_of(built).num_classes,
        networks.spec_of(built).resolution,
    ) == (0.5, 7, 32)
    assert networks.spec_of(built).architecture == OPTIONS


def test_a_file_that_contradicts_the_checkpoint_is_refused(config, checkpoint):
    config.write_text(CONFIG + "num_classes: 1000\n")  # the default, but explicit
    with pytest.raises(WeightsError, match="num_classes 7; requested was num_classes 1000"):
        build(config=config, weights=str(checkpoint))


def test_the_file_can_set_weights_and_seed(config):
    config.write_text(CONFIG + "weights: random\nseed: 3\n")
    built = build(config=config)
    assert built.info.provenance.origin == "seed 3"
    assert build(config=config, seed=4).info.provenance.origin == "seed 4"


def test_a_family_other_than_the_files_is_refused(config):
    assert build("v2", config=config, weights="random").info.architecture == "v2"
    with pytest.raises(UsageError, match=r"mine\.yaml describes a v2; requested was v1"):
        build("v1", config=config, weights="random")


def test_a_call_without_a_model_is_refused():
    with pytest.raises(UsageError, match="No model was named"):
        build(weights="random")


def test_export_takes_a_configuration_file(config, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        main(
            [
                *("export", "--config", str(config), "--weights", "random", "--num-classes", "5"),
                *("--format", "onnx", "--no-parity", "--out", str(tmp_path / "out"), "--json"),
            ]
        )
    assert end.value.code == 0
    (artifact,) = json.loads(capsys.readouterr().out)["artifacts"]
    assert artifact["spec"]["architecture"]["rows"] == [list(row) for row in ROWS]
    assert (artifact["spec"]["num_classes"], artifact["spec"]["resolution"]) == (5, 32)


TINY = {"weights": "random", "resolution": 32, "architecture": OPTIONS}


@pytest.mark.parametrize(
    ("classes", "asked", "task", "note"),
    [
        (1, None, "regression", "one output: it is judged as a regression"),
        (1, "embedding", "embedding", ""),
        (2, None, "classes", ""),
        (2, "regression", "regression", ""),
        (0, None, "embedding", "no classifier: it is judged as an embedding"),
    ],
)
def test_the_number_of_outputs_says_what_they_mean_unless_it_is_said(classes, asked, task, note):
    info = build("v2", num_classes=classes, task=asked, **TINY).info
    assert info.task == task
    assert note in " ".join(info.provenance.notes)
    assert bool(note) == ("--task" in " ".join(info.provenance.notes))


@pytest.mark.parametrize("classes", [0, 1])
def test_fewer_than_two_outputs_are_never_classes(classes):
    with pytest.raises(UsageError, match=f"the network has {classes} outputs"):
        build("v2", num_classes=classes, task="classes", **TINY)
    with pytest.raises(UsageError, match="task is 'landmarks'; expected one of classes, regress"):
        build("v2", task="landmarks", **TINY)


def test_export_keeps_the_task_in_the_manifest_and_shows_no_agreement(config, tmp_path, capsys):
    command = ["export", "--config", str(config), "--weights", "random", "--num-classes", "5"]
    command += ["--task", "regression", "--format", "onnx", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as end:
        main(command)
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "mean error" in shown
    assert "in the units of the outputs" in shown
    assert "agreement" not in shown
    (manifest,) = tmp_path.glob("*.onnx.json")
    document = json.loads(manifest.read_text())
    assert document["spec"]["task"] == document["parity"]["task"] == "regression"
    artifact = read_manifest(manifest.with_suffix(""))
    assert artifact.info.task == "regression"
    assert rebuild_float(artifact, None).info.task == "regression"
    with pytest.raises(UsageError, match=r"are no classes \(regression\)"):
        check_parity([manifest.with_suffix("")], min_top1_agreement=0.5)


@pytest.fixture
def hub_checkpoint(tmp_path):
    """A timm checkpoint with a config.json beside it, as on a hub."""
    golden = Path(__file__).parents[1] / "models/golden/timm-mobilenetv3_small_050.json"
    shapes = {key: tuple(shape) for key, shape in json.loads(golden.read_text())["shapes"].items()}
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(golden_state(shapes, 7), path)
    expects = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.5}
    config = {
        "architecture": "mobilenetv3_small_050",
        "label_names": [f"sort {i}" for i in range(10)],
        "pretrained_cfg": {**expects, "interpolation": "bicubic"},
    }
    path.with_name("config.json").write_text(json.dumps(config))
    return path


@pytest.mark.ci
def test_preprocessing_and_labels_of_the_weights_are_in_the_artifact(hub_checkpoint, tmp_path):
    built = build("v3-small", weights=str(hub_checkpoint), resolution=32)
    out = tmp_path / "out"
    done = deploy(built, formats=["onnx"], calibration=None, out=out, parity=False)
    with open_runner(done.artifacts[0].path) as runner:
        image, labels = runner.metadata["input"], runner.labels
    assert (image["mean"], image["std"]) == ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    assert (image["resize_short_side"], image["center_crop"]) == (64, 32)
    assert image["interpolation"] == "bicubic"
    assert labels == tuple(f"sort {i}" for i in range(10))


def test_arguments_override_labels_and_preprocessing_of_the_weights(hub_checkpoint, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\n".join("abcdefghij"))
    own = Preprocessing(crop_pct=1.0)
    built = build(
        "v3-small", weights=str(hub_checkpoint), resolution=32, labels=names, preprocessing=own
    )
    assert built.info.labels == tuple("abcdefghij")
    assert built.info.preprocessing == own


def test_a_mapping_overrides_single_fields_of_the_preprocessing(hub_checkpoint):
    built = build("v3-small", weights=str(hub_checkpoint), preprocessing={"crop_pct": 1.0})
    assert built.info.preprocessing == Preprocessing(
        mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), crop_pct=1.0, interpolation="bicubic"
    )


@pytest.mark.parametrize(
    ("flag", "value"),
    [("mean", "nan,0,0"), ("mean", "0.5"), ("std", "0,1,1"), ("std", "1,1,inf"), ("crop-pct", "0")],
)
def test_invalid_preprocessing_is_refused_before_anything_is_written(
    config, tmp_path, capsys, flag, value
):
    """Also in an unchecked float export: it needs no image, but the phone does."""
    out = tmp_path / "out"
    with pytest.raises(SystemExit) as end:
        main(
            [
                *("export", "--config", str(config), "--weights", "random", f"--{flag}", value),
                *("--format", "onnx", "--no-parity", "--out", str(out)),
            ]
        )
    assert end.value.code == 2
    assert f"The preprocessing's {flag} is" in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture
def thousand(tmp_path):
    """A checkpoint of a network with 1000 outputs, which nothing says anything about."""
    spec = ModelSpec(family="v1", width=0.25, num_classes=1000)
    torch.save(create(spec).state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_a_thousand_outputs_do_not_get_imagenets_names(thousand):
    built = build("v1", weights=str(thousand))
    assert built.info.labels == ()
    assert "pass --labels imagenet" in " ".join(built.info.provenance.notes)
    assert built.info.preprocessing == Preprocessing()


def test_a_thousand_outputs_get_the_names_that_are_asked_for(thousand):
    built = build("v1", weights=str(thousand), labels="imagenet")
    assert built.info.labels[0] == "tench"
    assert "--labels" not in " ".join(built.info.provenance.notes)


def test_a_thousand_outputs_that_are_no_classes_have_no_names_to_ask_for(thousand):
    built = build("v1", weights=str(thousand), task="embedding")
    assert "--labels" not in " ".join(built.info.provenance.notes)


@pytest.mark.parametrize("digest", [PUBLISHED["v1"].sha256, "7ebf99e0" + 56 * "0"])
def test_published_weights_in_a_file_have_imagenets_names(thousand, monkeypatch, digest):
    monkeypatch.setattr("mobiledeploy.checkpoints.open.sha256_of", lambda _: digest)
    assert build("v1", weights=str(thousand)).info.labels[0] == "tench"


def test_published_weights_at_another_resolution_say_so(thousand, monkeypatch):
    def notes(resolution):
        built = build("v1", weights=str(thousand), resolution=resolution)
        return " ".join(built.info.provenance.notes)

    assert "published for" not in notes(96)
    digest = PUBLISHED["v1"].sha256
    monkeypatch.setattr("mobiledeploy.checkpoints.open.sha256_of", lambda _: digest)
    assert "published for images of 224x224 pixels; this network takes 96x96" in notes(96)
    assert "published for" not in notes(224)


@pytest.mark.parametrize(("tag", "first"), [("lamb_in1k", "tench"), ("mine", None)])
def test_a_hubs_config_says_whether_weights_are_imagenets(tmp_path, tag, first):
    spec = ModelSpec(family="v3-small", width=0.5, num_classes=1000)
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(create(spec).state_dict(), path)
    pretrained = {"mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 0.875, "tag": tag}
    config = {
        "architecture": "mobilenetv3_small_050",
        "pretrained_cfg": pretrained | {"interpolation": "bicubic", "input_size": [3, 192, 192]},
    }
    path.with_name("config.json").write_text(json.dumps(config))
    info = build("v3-small", weights=str(path)).info
    assert info.labels[:1] == ((first,) if first else ())
    assert "published for images of 192x192" in " ".join(info.provenance.notes)
