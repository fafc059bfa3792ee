"""Which network of a file is taken, with which note, and when several are an error."""

import argparse
import datetime
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from golden_state import golden_images, golden_state
from implementations import ListOfLayersV1, NamedLayersV1, distinct
from torch import nn

from mobiledeploy.checkpoints.identify import complete_spec, inspect_checkpoint
from mobiledeploy.checkpoints.load import load_weights
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.spec import ArchitectureOptions, ModelSpec
from mobiledeploy.network import Preprocessing

HERE = Path(__file__).parent
HALF = (0.5, 0.5, 0.5)


def load(path):
    """Inspect, build and load; return the module and all notes."""
    info = inspect_checkpoint(path, create_on_meta)
    spec = complete_spec(info, ModelSpec(family=info.family, weights=str(path)), {"family"})
    module = create(spec)
    provenance = load_weights(module, spec)
    return info, module, (*info.notes, *provenance.notes)


def assert_loaded(module: nn.Module, expected: dict[str, torch.Tensor]) -> None:
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def prefixed(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


@pytest.fixture
def tensors(small) -> dict[str, torch.Tensor]:
    return small[1].state_dict()


@pytest.fixture
def others(tensors) -> dict[str, torch.Tensor]:
    """Another network of the same architecture."""
    return {name: tensor + 1 for name, tensor in tensors.items()}


# --- containers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["model_state", "weights", "best_model", "student", "g", "a.b"])
def test_the_only_network_is_taken_whatever_its_key(key, tensors, saved):
    _, module, notes = load(saved({key: tensors, "epoch": 1, "optimizer": {"state": {}}}))
    assert_loaded(module, tensors)
    assert f"The weights were taken from {key!r}." in notes


def test_a_documented_key_needs_no_note(tensors, saved):
    _, _, notes = load(saved({"state_dict": tensors, "epoch": 1}))
    assert not any("taken" in note for note in notes)


def without_buffers(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the parameters only, as an average of parameters has them."""
    return {name: tensor for name, tensor in tensors.items() if "running" not in name}


AVERAGES = {
    "empty": lambda _: {},
    "no buffers": without_buffers,
    "incomplete": lambda tensors: dict(list(tensors.items())[:50]),
    "without tensors": lambda _: {"decay": 0.99, "num_updates": 3},
    "nested": lambda tensors: {"shadow": without_buffers(tensors)},
}


@pytest.mark.ci
@pytest.mark.parametrize("kind", AVERAGES)
def test_an_average_that_is_no_whole_network_does_not_hide_the_model(kind, tensors, saved):
    average = AVERAGES[kind]({name: tensor * 0 for name, tensor in tensors.items()})
    _, module, notes = load(saved({"ema": average, "state_dict": tensors}))
    assert_loaded(module, tensors)
    has_tensors = kind in ("no buffers", "incomplete", "nested")
    assert any("'ema" in note and "not taken" in note for note in notes) == has_tensors


def test_a_whole_average_is_preferred_and_the_others_are_named(tensors, others, saved):
    _, module, notes = load(saved({"model": others, "model_ema": tensors, "last": others}))
    assert_loaded(module, tensors)
    assert "The averaged weights ('model_ema') were taken." in notes
    assert any("other weights that fit and were not taken: 'model'" in note for note in notes)


def test_a_documented_key_is_preferred_to_an_unknown_one(tensors, others, saved):
    _, module, notes = load(saved({"teacher": others, "model": tensors}))
    assert_loaded(module, tensors)
    assert any("not taken: 'teacher'" in note for note in notes)


@pytest.mark.parametrize("flat", [False, True])
def test_several_networks_under_unknown_keys_are_refused_with_their_names(
    flat, tensors, others, saved
):
    nets = {"student": tensors, "teacher": others}
    content = (
        nets
        if not flat
        else {k: v for n, t in nets.items() for k, v in prefixed(f"{n}.", t).items()}
    )
    with pytest.raises(WeightsError, match="several networks that fit: 'student', 'teacher'") as e:
        load(saved(content))
    assert "Save the one that you mean alone" in e.value.remedy


def test_equal_copies_are_one_network(tensors, saved):
    content = {"best": tensors, "last": {name: tensor.clone() for name, tensor in tensors.items()}}
    _, module, _ = load(saved(content))
    assert_loaded(module, tensors)


def test_another_network_beside_it_does_not_matter(tensors, saved):
    resnet = nn.Sequential(nn.Conv2d(3, 64, 7), *[nn.Conv2d(64, 64, 3) for _ in range(60)])
    _, module, notes = load(saved({"big": resnet.state_dict(), "small": tensors}))
    assert_loaded(module, tensors)
    assert "The weights were taken from 'small'." in notes


@pytest.mark.ci
def test_gradients_and_moments_are_no_networks(tensors, saved):
    """They have the names of the parameters, but no running statistics."""
    moments = {n: torch.zeros_like(t) for n, t in tensors.items() if "running" not in n}
    _, module, _ = load(saved({"exp_avg": moments, "net_state": tensors, "grads": moments}))
    assert_loaded(module, tensors)


@pytest.mark.ci
def test_where_nothing_fits_the_largest_network_is_described(tensors, saved):
    broken = {name: tensor for name, tensor in tensors.items() if "features.3" not in name}
    tiny = {"conv.weight": torch.ones(4, 3, 1, 1)}
    with pytest.raises(WeightsError, match=r"missing: features\.3\.conv"):
        load(saved({"ema": tiny, "weights": broken, "zz": tiny}))


@pytest.mark.parametrize(
    ("content", "described"),
    [
        ([1, 2], "a list"),
        (3, "a int"),
        ({}, "an empty dictionary"),
        ({"epoch": 3, "lr": 0.1}, "a dictionary of 'epoch', 'lr'"),
    ],
)
def test_a_file_without_tensors_is_refused_with_its_content(content, described, saved):
    with pytest.raises(WeightsError, match=f"holds no named tensors, but {described}"):
        load(saved(content))


def test_a_whole_module_is_refused_with_the_way_to_convert_it(saved, small):
    with pytest.raises(WeightsError, match=r"running code that it names \(mobiledeploy") as error:
        load(saved({"model": small[1], "epoch": 3}))
    assert "weights_only=False" in error.value.remedy


def test_what_was_skipped_is_noted(tensors, saved):
    day = datetime.date(2024, 5, 1)
    _, module, notes = load(saved({"state_dict": tensors, "day": day}))
    assert_loaded(module, tensors)
    assert any("skipped: datetime.date" in note for note in notes)


# --- prefixes and dialects ------------------------------------------------------------------------

PREFIXES = ("backbone.", "net.0.", "model.backbone.", "_fsdp_wrapped_module.")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_torchvisions_v3_is_recognised_behind_any_prefix(prefix, saved):
    spec = ModelSpec(family="v3-small", width=0.5, num_classes=7)
    expected = distinct(spec).state_dict()
    info, module, _ = load(saved(prefixed(prefix, expected)))
    assert info.dialect == "torchvision"
    assert_loaded(module, expected)


def golden(name: str) -> dict[str, object]:
    (path,) = HERE.parent.glob(f"*/golden/{name}.json")
    return json.loads(path.read_text())


CONVENTIONS = {
    "transformers-mobilenet_v1_0.5": Preprocessing(mean=HALF, std=HALF),
    "transformers-mobilenet_v2_0.35": Preprocessing(mean=HALF, std=HALF),
    "timm-mobilenetv1_100": Preprocessing(mean=HALF, std=HALF, interpolation="bicubic"),
    "timm-mobilenetv3_small_075": Preprocessing(interpolation="bicubic"),
}


@pytest.mark.parametrize(("prefix", "suffix"), [("net.0.", "pth"), ("backbone.", "safetensors")])
@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_dialect_keeps_its_conventions_behind_a_prefix(name, prefix, suffix, tmp_path):
    """Padding, epsilon and preprocessing, and the library's own outputs."""
    document = golden(name)
    state = golden_state({key: tuple(shape) for key, shape in document["shapes"].items()}, 7)
    path = tmp_path / f"best.{suffix}"
    if suffix == "pth":
        torch.save(prefixed(prefix, state), path)
    else:
        safetensors.torch.save_file(prefixed(prefix, state), path)
    info = inspect_checkpoint(path, create_on_meta)
    spec = complete_spec(info, ModelSpec(family=info.family, weights=str(path)), {"family"})
    module = create(spec).double()
    load_weights(module, spec)
    assert info.preprocessing == CONVENTIONS[name]
    assert info.dialect == name.split("-")[0]
    images = golden_images(document["seed"], document["images"])
    reference = torch.tensor(document["logits"], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(module(images), reference, rtol=0, atol=1e-9)


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v2"])
def test_a_base_model_of_transformers_keeps_its_conventions(name, prefix, saved):
    """Its names lack "mobilenet_v1."; they were once taken for names of nobody."""
    document = golden(f"transformers-{name}_{'0.5' if name.endswith('1') else '0.35'}")
    state = golden_state({key: tuple(shape) for key, shape in document["shapes"].items()}, 7)
    base = {n.removeprefix(f"{name}."): t for n, t in state.items() if name in n}
    info, module, _ = load(saved(prefixed(prefix, base)))
    assert info.dialect == "transformers"
    assert info.num_classes == 0
    assert info.architecture == ArchitectureOptions(padding="same", norm_eps=1e-3)
    assert info.preprocessing.mean == HALF
    assert module.features[0][1].eps == 1e-3


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.net."])
@pytest.mark.parametrize(
    ("make", "activation"), [(ListOfLayersV1, "relu"), (NamedLayersV1, "relu6")]
)
def test_the_activation_of_a_known_v1_does_not_depend_on_the_prefix(
    make, activation, prefix, saved
):
    info, *_ = load(saved(prefixed(prefix, make(0.25, 7).state_dict())))
    assert info.architecture.activation == activation
    assert any(
        f"assumed to be {'ReLU' if activation == 'relu' else 'ReLU6'}" in n for n in info.notes
    )


def test_what_a_dialect_leaves_open_is_named_with_the_candidates(saved):
    info, *_ = load(saved(NamedLayersV1(0.25, 7).state_dict()))
    assert any("`padding: same` and `norm_eps: 0.001`" in note for note in info.notes)


@pytest.mark.parametrize(
    "metadata",
    [
        {"arch": "tf_mobilenetv3_small_075"},
        {"args": argparse.Namespace(model="tf_mobilenetv3_small_075")},
        {"hyper_parameters": {"model_name": "tf_mobilenetv3_small_075"}},
    ],
)
def test_the_name_that_a_training_script_saved_tells_the_port_from_tensorflow(metadata, saved):
    document = golden("timm-mobilenetv3_small_075")
    state = golden_state({key: tuple(shape) for key, shape in document["shapes"].items()}, 7)
    info, *_ = load(saved({"state_dict": state, **metadata}, "best.pth"))
    assert info.architecture.padding == "same"
    assert info.preprocessing.mean == HALF


def test_the_folder_of_a_hubs_cache_tells_the_port_from_tensorflow(tmp_path):
    document = golden("timm-mobilenetv3_small_075")
    state = golden_state({key: tuple(shape) for key, shape in document["shapes"].items()}, 7)
    folder = tmp_path / "models--timm--tf_mobilenetv3_small_075.in1k/snapshots/0123abc"
    folder.mkdir(parents=True)
    safetensors.torch.save_file(state, folder / "model.safetensors")
    assert (
        inspect_checkpoint(folder / "model.safetensors", create_on_meta).preprocessing.mean == HALF
    )
    other = (folder / "model.safetensors").rename(folder / "net.safetensors")
    assert inspect_checkpoint(other, create_on_meta).preprocessing.mean != HALF


@pytest.mark.parametrize(
    ("config", "padding", "eps", "labels"),
    [
        ({}, "same", 1e-3, ()),
        ({"tf_padding": True, "layer_norm_eps": 1e-3}, "same", 1e-3, ()),
        ({"tf_padding": False, "layer_norm_eps": 1e-5}, "symmetric", 1e-5, ()),
        ({"id2label": {"1": "dog", "0": "cat"}}, "same", 1e-3, ("cat", "dog")),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, "same", 1e-3, ()),
    ],
)
def test_transformers_config_decides_over_its_conventions(config, padding, eps, labels, tmp_path):
    document = golden("transformers-mobilenet_v1_0.5")
    state = golden_state({key: tuple(shape) for key, shape in document["shapes"].items()}, 7)
    torch.save(state, tmp_path / "pytorch_model.bin")
    text = json.dumps({"model_type": "mobilenet_v1", **config})
    (tmp_path / "config.json").write_text(text)
    info, module, _ = load(tmp_path / "pytorch_model.bin")
    assert info.architecture.padding == padding
    assert module.features[0][1].eps == eps
    assert info.labels == labels
    assert info.preprocessing.mean == HALF


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["v1", "v2", "v3-small"])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_classifier_with_another_name_is_taken_with_a_note(family, prefix, saved):
    """As of fine-tuned networks: `classifier` for `classifier.1`, or a head beside the backbone."""
    expected = distinct(ModelSpec(family=family, width=0.5, num_classes=7)).state_dict()
    state = {}
    for name, tensor in expected.items():
        rest = name.removeprefix("classifier.")
        is_head = name.startswith("classifier")
        state[f"head.{rest}" if is_head else f"{prefix}{name}"] = tensor
    _, module, notes = load(saved(state))
    assert_loaded(module, expected)
    assert any("classifier has other names" in note and "head" in note for note in notes)


def test_a_backbone_without_its_head_is_refused(tensors, saved):
    """Two linear layers that are no published head: leaving them out would give features."""
    state = {f"backbone.{n}": t for n, t in tensors.items() if not n.startswith("classifier")}
    head = {"head.0.weight": torch.ones(64, 1280), "head.2.weight": torch.ones(7, 64)}
    with pytest.raises(WeightsError, match=r"2 modules beside it .*: head\.0, head\.2"):
        load(saved({**state, **head}))


@pytest.mark.ci
def test_a_head_in_another_entry_is_refused(tensors, saved):
    """Taking the backbone alone would give features in place of classes."""
    backbone = {n: t for n, t in tensors.items() if not n.startswith("classifier")}
    head = {"weight": torch.ones(7, 1280), "bias": torch.ones(7)}
    with pytest.raises(WeightsError, match=r"without classifier at 'backbone' .* at 'head'"):
        load(saved({"backbone": backbone, "head": head}))
    info, module, _ = load(saved({"backbone": backbone, "epoch": 3}))
    assert info.num_classes == 0
    assert_loaded(module, backbone)
