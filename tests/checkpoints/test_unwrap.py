from pathlib import Path

import pytest
import torch

from mobiledeploy.checkpoints.unwrap import unwrap
from mobiledeploy.errors import WeightsError

PATH = Path("net.pth")


def state(value: float = 1.0, prefix: str = "") -> dict[str, torch.Tensor]:
    names = ("features.0.0.weight", "features.0.1.weight", "classifier.1.weight")
    return {f"{prefix}{name}": torch.full((2,), value) for name in names}


@pytest.mark.parametrize(
    "key", ["state_dict", "model_state_dict", "model", "net", "network", "module", "params"]
)
def test_a_state_dict_is_found_in_a_training_checkpoint(key):
    content = {"epoch": 3, key: state(), "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    assert list(unwrap(content, PATH).tensors) == list(state())


def test_a_bare_state_dict_is_taken_as_it_is():
    found = unwrap(state(), PATH)
    assert list(found.tensors) == list(state())
    assert found.notes == ()


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "ema_state_dict"])
def test_averaged_weights_are_preferred_with_a_note(key):
    found = unwrap({"state_dict": state(1.0), "model": state(1.0), key: state(2.0)}, PATH)
    assert all((tensor == 2).all() for tensor in found.tensors.values())
    assert any(repr(key) in note for note in found.notes)


def test_containers_may_be_nested():
    found = unwrap({"model": {"state_dict": {"module": state()}}}, PATH)
    assert list(found.tensors) == list(state())


def test_a_checkpoint_that_contains_itself_ends():
    content: dict[str, object] = {}
    content["state_dict"] = content
    with pytest.raises(WeightsError, match="holds no named tensors"):
        unwrap(content, PATH)


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "net.", "_orig_mod.", "module.model.", "model._orig_mod."]
)
def test_wrapper_prefixes_are_stripped_with_a_note(prefix):
    found = unwrap(state(prefix=prefix), PATH)
    assert list(found.tensors) == list(state())
    assert found.prefix == prefix
    assert any(repr(prefix) in note for note in found.notes)


def test_the_prefix_is_stripped_beside_tensors_of_a_loss():
    tensors = {f"model.features.{i}.weight": torch.ones(1) for i in range(20)}
    found = unwrap({**tensors, "loss.pos_weight": torch.ones(1)}, PATH)
    assert "features.3.weight" in found.tensors
    assert "loss.pos_weight" in found.tensors, "a tensor was dropped"


def test_a_list_of_layers_called_model_is_not_a_wrapper():
    tensors = {f"model.{i}.0.weight": torch.ones(1) for i in range(20)}
    assert list(unwrap(tensors, PATH).tensors) == list(tensors)


def test_counters_of_tools_are_ignored_with_a_note():
    extra = {"n_averaged": torch.tensor(3), "features.0.total_ops": torch.zeros(1)}
    found = unwrap({**state(), **extra}, PATH)
    assert list(found.tensors) == list(state())
    assert any("2 counters" in note and "n_averaged" in note for note in found.notes)


@pytest.mark.parametrize(
    ("content", "described"),
    [
        ([1, 2], "a list"),
        (torch.ones(2), "a Tensor"),
        ({}, "an empty dictionary"),
        ({"epoch": 3, "lr": 0.1}, "a dictionary of 'epoch', 'lr'"),
        ({"state_dict": {}}, "an empty dictionary"),
    ],
)
def test_a_file_without_tensors_is_refused_with_its_content(content, described):
    with pytest.raises(WeightsError, match=f"holds no named tensors, but {described}"):
        unwrap(content, PATH)
