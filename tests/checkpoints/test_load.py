import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from implementations import distinct
from torch import nn

from mobiledeploy.checkpoints import hub
from mobiledeploy.checkpoints.identify import complete_spec, inspect_checkpoint
from mobiledeploy.checkpoints.load import load_weights
from mobiledeploy.checkpoints.published import PUBLISHED, Published
from mobiledeploy.checkpoints.resolve import resolve
from mobiledeploy.errors import UsageError, WeightsError
from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.network import WeightsProvenance

SMALL = ModelSpec(family="v3-small")


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def published(server, tmp_path, monkeypatch) -> nn.Module:
    """Serve a random V3-Small as the ImageNet weights; return it."""
    module = distinct(SMALL)
    torch.save(module.state_dict(), tmp_path / "net.pth")
    content = (tmp_path / "net.pth").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    server.files["small.pth"] = content
    offered = Published("small.pth", "https://publisher.example/small.pth", sha256, len(content))
    monkeypatch.setitem(PUBLISHED, "v3-small", offered)
    return module


def test_random_weights_are_the_initial_ones():
    spec = replace(SMALL, weights="random", seed=3)
    module = create(spec)
    before = state_of(module)
    provenance = load_weights(module, spec)
    assert provenance == WeightsProvenance(source="random", origin="seed 3")
    assert equal(state_of(module), before)


def test_imagenet_weights_are_fetched_and_loaded(published, server):
    module = create(SMALL)
    provenance = load_weights(module, SMALL)
    assert equal(state_of(module), state_of(published))
    assert provenance.source == "imagenet"
    assert provenance.origin == "https://publisher.example/small.pth"
    assert provenance.sha256 == PUBLISHED["v3-small"].sha256
    assert provenance.dialect == "torchvision"
    assert provenance.notes == ("244 of 244 tensors were loaded from the checkpoint.",)
    assert server.requests == ["small.pth"]


@pytest.mark.usefixtures("published")
def test_cached_imagenet_weights_never_touch_the_network(server, monkeypatch):
    first = load_weights(create(SMALL), SMALL)
    monkeypatch.setattr(hub, "download", None)
    assert load_weights(create(SMALL), SMALL) == first, "the provenance depends on the source"
    assert server.requests == ["small.pth"]


@pytest.mark.usefixtures("published")
def test_a_replaced_cache_file_is_mentioned(cache):
    cache.mkdir(parents=True)
    (cache / "small.pth").write_bytes(b"rot")
    provenance = load_weights(create(SMALL), SMALL)
    assert "was damaged; it was replaced" in provenance.notes[0]


def test_unavailable_imagenet_weights_leave_the_network_unchanged():
    module = create(SMALL)
    before = state_of(module)
    with pytest.raises(WeightsError, match="not available"):
        load_weights(module, SMALL)
    assert equal(state_of(module), before)


def test_imagenet_weights_for_another_variant_are_a_usage_error():
    spec = replace(SMALL, width=0.75)
    with pytest.raises(UsageError, match=r"width 0\.75"):
        load_weights(create(spec), spec)
    with pytest.raises(UsageError, match=r"width 0\.75"):
        resolve(spec, {"family", "width"}, create_on_meta)


def test_a_file_is_loaded_with_its_provenance(saved, small):
    path = saved({"state_dict_ema": {f"module.{k}": v for k, v in state_of(small[1]).items()}})
    spec = replace(small[0], weights=str(path))
    module = create(spec)
    provenance = load_weights(module, spec)
    assert equal(state_of(module), state_of(small[1]))
    assert provenance.source == "file"
    assert provenance.origin == str(path)
    assert provenance.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert any("averaged weights ('state_dict_ema')" in note for note in provenance.notes)
    assert any("prefix 'module.'" in note for note in provenance.notes)


# --- before the network is built -----------------------------------------------------------------


def test_random_weights_imply_nothing():
    spec = replace(SMALL, weights="random")
    found = resolve(spec, {"family"}, create_on_meta)
    assert found.spec == spec
    assert found.preprocessing is None


@pytest.mark.parametrize(("family", "mean"), [("v1", 0.5), ("v2", 0.485), ("v3-large", 0.485)])
def test_imagenet_weights_imply_their_publishers_preprocessing(family, mean):
    found = resolve(ModelSpec(family=family), {"family"}, create_on_meta)
    assert found.preprocessing.mean[0] == mean


def test_a_checkpoint_completes_the_specification_with_notes(saved, small):
    asked = ModelSpec(family="v2", resolution=32, weights=str(saved()))
    found = resolve(asked, {"family", "resolution"}, create_on_meta)
    assert replace(found.spec, weights="imagenet") == small[0]
    assert found.notes == (
        "The tensors are those of a v2 of width 0.25 with 7 classes and 3 input channels.",
    )


def test_a_contradicted_flag_is_refused(saved):
    asked = ModelSpec(family="v2", num_classes=1000, weights=str(saved()))
    with pytest.raises(WeightsError, match="has num_classes 7; requested was num_classes 1000"):
        resolve(asked, {"family", "num_classes"}, create_on_meta)


# --- real weights ---------------------------------------------------------------------------------

TRAINED = {
    "mobilenet_v1_0.5_cifar10": ("v1", 0.5, "mobiledeploy", 164),
    "mobilenet_v3_large_cifar10": ("v3-large", 1.0, "torchvision", 312),
    "mobilenet_v3_small_cifar10": ("v3-small", 1.0, "torchvision", 244),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", TRAINED)
def test_trained_checkpoints_are_recognised_and_used_in_full(shared: Path, name):
    family, width, dialect, tensors = TRAINED[name]
    path = shared / "checkpoints" / f"{name}.safetensors"
    info = inspect_checkpoint(path, create_on_meta)
    assert (info.family, info.width, info.num_classes, info.in_channels) == (family, width, 10, 3)
    assert not info.architecture.changed
    spec = complete_spec(info, ModelSpec(family=family, weights=str(path)), {"family"})
    provenance = load_weights(create(spec), spec)
    assert provenance.dialect == dialect
    assert f"{tensors} of {tensors} tensors" in provenance.notes[0]
