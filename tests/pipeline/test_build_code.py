"""A network from code through the whole pipeline."""

import json
from pathlib import Path

import networks
import numpy as np
import own_networks
import pytest
import torch
from torch import nn

from mobiledeploy.artifact.manifest import read_manifest
from mobiledeploy.errors import ArtifactError, OtherInputsError, UsageError
from mobiledeploy.models.code_spec import CodeSpec
from mobiledeploy.models.initialize import randomize_batch_norm
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.pipeline.build_code import from_module
from mobiledeploy.pipeline.deploy import deploy
from mobiledeploy.pipeline.rebuild import find_checkpoint, rebuild_float
from mobiledeploy.stages import RECIPES

SOURCE = Path(own_networks.__file__).read_text()
IMAGES = torch.from_numpy(networks.pixels(32, count=3))


def returning(function):
    """Return a module that calls a function."""
    return type("Module", (nn.Module,), {"forward": lambda _, x: function(x)})()


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with net.py and its checkpoint, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(SOURCE)
    module = own_networks.Tutorial(classes=4).eval()
    randomize_batch_norm(module, seed=2)
    torch.save(module.state_dict(), "best.pth")
    return module


def built():
    return build("net.py:Tutorial", weights="best.pth", resolution=32, arguments={"classes": 4})


def test_code_and_weights_give_the_network(project):
    model = built()
    assert model.info.name == "net_Tutorial_32-classes4"
    assert (model.info.classes, model.info.architecture) == (4, "custom")
    with torch.no_grad():
        assert torch.equal(model.module(IMAGES), project(IMAGES))


@pytest.mark.ci
@pytest.mark.usefixtures("project")
def test_int8_is_exact_in_both_formats_and_is_built_again_from_the_manifest(tmp_path):
    model = built()
    calibration = load_images(model, None, 8)
    done = deploy(
        model,
        formats=("onnx", "pte"),
        calibration=calibration,
        recipe=RECIPES["fast"],
        out=tmp_path / "out",
        allow_mismatch=True,
    )
    done.require_passed()
    rungs = {rung.name: rung for rung in done.parity.rungs if rung.artifact}
    for name in ("onnx", "pte"):
        metrics = rungs[name].against("integers").metrics
        assert (metrics["logits"], metrics["differing_logits"]) == (32, 0)
    manifest = read_manifest(done.artifacts[0].path)
    again = rebuild_float(manifest, find_checkpoint(manifest))
    assert again.info == model.info
    (tmp_path / "net.py").write_text(SOURCE + "\n# changed\n")
    with pytest.raises(OtherInputsError, match=r"net\.py is not the source"):
        rebuild_float(manifest, find_checkpoint(manifest))


@pytest.mark.usefixtures("project")
def test_the_manifest_of_a_moved_project_still_finds_its_code(tmp_path, monkeypatch):
    done = deploy(built(), formats=("onnx",), calibration=None, parity=False, out=Path("out"))
    document = json.loads(done.manifests[0].read_text())
    assert document["code_from_manifest"] == "../net.py"
    assert document["spec"]["code"] == "net.py:Tutorial"
    moved = tmp_path.with_name(f"{tmp_path.name}-moved")
    tmp_path.rename(moved)
    monkeypatch.chdir(moved.parent)
    manifest = read_manifest(moved / "out" / done.artifacts[0].path.name)
    model = rebuild_float(manifest, find_checkpoint(manifest))
    assert model.info.provenance.sha256 == manifest.weights.sha256


def test_a_module_is_deployed_but_not_built_again(project, tmp_path):
    model = from_module(project, input_shape=(3, 32, 32), labels=("a", "b", "c", "d"))
    assert (model.info.name, model.info.labels) == ("tutorial_32", ("a", "b", "c", "d"))
    done = deploy(model, formats=("onnx",), calibration=None, parity=False, out=tmp_path / "out")
    manifest = read_manifest(done.artifacts[0].path)
    with pytest.raises(ArtifactError, match="given as a module in Python"):
        rebuild_float(manifest, None)


def test_the_float_artifact_computes_what_the_module_computes(project, tmp_path):
    from mobiledeploy.runtimes.open import open_runner

    done = deploy(built(), formats=("onnx",), calibration=None, parity=False, out=tmp_path / "out")
    with open_runner(done.artifacts[0].path) as runner:
        found = runner.run({"input": IMAGES.numpy()})["logits"]
    with torch.no_grad():
        expected = project(IMAGES).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.usefixtures("project")
def test_weights_that_the_code_returns_are_pinned_by_their_digest():
    one, same = (build("net.py:Tutorial", resolution=32, seed=seed) for seed in (0, 0))
    other = build("net.py:Tutorial", resolution=32, seed=1)
    assert one.info.provenance.source == "code"
    assert one.info.provenance.sha256 == same.info.provenance.sha256
    assert one.info.provenance.sha256 != other.info.provenance.sha256


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"width": 0.5}, "--width cannot change a network from code"),
        ({"num_classes": 3}, "--num-classes cannot change"),
        ({"weights": "imagenet"}, "no published weights"),
        ({"in_channels": 1}, "refuses an input of the shape"),
        ({"resolution": 8}, "resolution is 8"),
    ],
)
@pytest.mark.usefixtures("project")
def test_what_code_cannot_take_is_refused(fields, text):
    with pytest.raises(UsageError, match=text):
        build("net.py:Tutorial", **fields)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (returning(lambda x: x.mean([1, 2, 3])), r"returns a tensor \(1,\); expected \(1, ...\)"),
        (returning(lambda x: x[0]), r"returns a tensor \(3, 32, 32\)"),
        (returning(lambda x: (x, 3)), "returns a tuple: found Tensor, int; expected tensors"),
    ],
)
def test_anything_but_tensors_of_one_image_is_refused(module, text):
    with pytest.raises(UsageError, match=text):
        from_module(module, input_shape=(1, 3, 32, 32))


def heads(x):
    return {"kind": x.mean([2, 3]), "age": x.mean([2, 3])[:, :1], "places": x}


def test_outputs_of_a_dict_keep_their_names_and_get_their_tasks_by_name():
    given = ("age", "places:map", "kind:embedding")
    info = from_module(returning(heads), input_shape=(3, 32, 32), outputs=given).info
    assert [(each.name, each.task, each.shape) for each in info.outputs] == [
        ("kind", "embedding", (3,)),
        ("age", "regression", (1,)),
        ("places", "map", (3, 32, 32)),
    ]


def test_outputs_of_a_tuple_are_numbered_or_named_in_order():
    def pair(x):
        return x.mean([2, 3]), x

    plain = from_module(returning(pair), input_shape=(3, 32, 32)).info.outputs
    assert [(each.name, each.task) for each in plain] == [
        ("output_0", "classes"),
        ("output_1", "map"),
    ]
    named = from_module(returning(pair), input_shape=(3, 32, 32), outputs=("a", "b:regression"))
    assert [(each.name, each.task) for each in named.info.outputs] == [
        ("a", "classes"),
        ("b", "regression"),
    ]


def test_the_only_output_keeps_its_usual_name_and_gets_the_task():
    module = returning(lambda x: x.mean([2, 3]))
    model = from_module(module, input_shape=(3, 32, 32), outputs=["logits:embedding"])
    assert model.info.is_plain
    assert CodeSpec.from_document(model.info.source).task == model.info.task == "embedding"


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        (("kind", "age"), "--output names kind, age; the network has 3 outputs: kind, age, places"),
        (("kind", "age", "other"), "--output names kind, age, other"),
        (
            ("kind:classes", "age", "places:classes"),
            r"places .* is no classes",
        ),
        (("kind:colour", "age", "places"), "'colour' is no task; expected one of classes"),
    ],
)
def test_outputs_that_do_not_fit_the_network_are_refused(outputs, text):
    with pytest.raises(UsageError, match=text):
        from_module(returning(heads), input_shape=(3, 32, 32), outputs=outputs)


def test_several_outputs_survive_the_document_of_their_specification():
    spec = CodeSpec.from_document(
        json.loads(json.dumps(from_module(returning(heads), input_shape=(3, 32, 32)).info.source))
    )
    assert [(each.name, each.shape) for each in spec.outputs] == [
        ("kind", (3,)),
        ("age", (1,)),
        ("places", (3, 32, 32)),
    ]


def test_random_weights_are_settled_on_images_of_the_networks_own_size(tmp_path):
    code = tmp_path / "flat.py"
    code.write_text(
        "from torch import nn\n"
        "def create():\n"
        "    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()]\n"
        "    return nn.Sequential(*layers, nn.Linear(8 * 32 * 16, 5))\n"
    )
    model = build(f"{code}:create", weights="random", resolution=(64, 32))
    assert model.info.classes == 5
    with pytest.raises(UsageError, match=r"refuses an input of the shape \(1, 3, 48, 48\)"):
        build(f"{code}:create", weights="random", resolution=48)
