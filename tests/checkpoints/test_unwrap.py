"""Networks are found in whatever training scripts save."""

import types
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from mobiledeploy.checkpoints.unwrap import precedes, state_dicts


def state(value: float = 1.0, prefix: str = "") -> dict[str, torch.Tensor]:
    names = ("features.0.0.weight", "features.0.1.weight", "classifier.1.weight")
    return {f"{prefix}{name}": torch.full((2, 2, 1, 1), value) for name in names}


def first(content: object):
    return state_dicts(content)[0]


@pytest.mark.parametrize(
    "key",
    [
        *("state_dict", "model_state_dict", "model", "net", "network", "module", "params"),
        *("model_state", "net_state_dict", "weights", "best_model", "student", "backbone", "0"),
    ],
)
def test_a_state_dict_is_found_under_any_key(key):
    content = {"epoch": 3, key: state(), "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    found = first(content)
    assert list(found.tensors) == list(state())
    assert found.place == key


def test_a_bare_state_dict_is_taken_as_it_is():
    (found,) = state_dicts(state())
    assert list(found.tensors) == list(state())
    assert (found.place, found.notes) == ("", ())


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "ema_state_dict"])
def test_averaged_weights_come_first(key):
    found = first({"state_dict": state(1.0), "model": state(1.0), key: state(2.0)})
    assert all((tensor == 2).all() for tensor in found.tensors.values())
    assert found.is_averaged


def test_documented_keys_come_before_others_and_before_tensors_beside_them():
    content = {"zoo": state(3.0), **state(2.0), "model": state(1.0)}
    values = [float(s.tensors["features.0.0.weight"][0, 0]) for s in state_dicts(content)]
    assert values == [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"state_dict": {"module": state()}}},
        {"a": {"b": {"c": state()}}},
        [3, state()],
        ({"epoch": 3}, {"weights": state()}),
        {"model": OrderedDict(state())},
    ],
)
def test_containers_may_be_nested(content):
    assert list(first(content).tensors) == list(state())


def test_arrays_of_numpy_are_tensors():
    found = first({name: tensor.numpy() for name, tensor in state().items()})
    assert torch.equal(found.tensors["classifier.1.weight"], state()["classifier.1.weight"])


def test_a_namespace_is_a_container(tmp_path):
    from mobiledeploy.checkpoints.read import read_checkpoint

    torch.save(types.SimpleNamespace(model=state(), lr=np.uint8(1)), tmp_path / "net.pth")
    found = first(read_checkpoint(tmp_path / "net.pth").content)
    assert list(found.tensors) == list(state())
    assert found.place == "model"


def test_a_checkpoint_that_contains_itself_ends():
    content: dict[str, object] = {}
    content.update(dict.fromkeys(("state_dict", "model", "a", "b", "c", "d"), content))
    assert state_dicts(content) == []


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "model.", "net.", "module.model.", "backbone.", "encoder.", "base_model."),
        *("net.0.", "model.backbone.", "0.", "timm_model.", "student.network."),
    ],
)
@pytest.mark.parametrize("first_layer", ["features.0.0", "conv_stem", "conv_stem.convolution"])
def test_any_prefix_is_stripped_with_a_note(prefix, first_layer):
    names = [f"{first_layer}.weight", "bn1.weight", "classifier.weight"]
    (found,) = state_dicts({f"{prefix}{name}": torch.ones(2, 2, 1, 1) for name in names})
    assert list(found.tensors) == names
    assert found.prefix == prefix
    assert any(repr(prefix) in note for note in found.notes)


def test_the_prefix_of_a_transformers_model_is_kept():
    """It is part of the library's own names."""
    names = ["mobilenet_v1.conv_stem.convolution.weight", "classifier.weight"]
    (found,) = state_dicts({f"net.{name}": torch.ones(2, 2, 1, 1) for name in names})
    assert list(found.tensors) == names


@pytest.mark.parametrize(
    "wrapper", ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "module"]
)
def test_wrappers_are_removed_anywhere_in_a_name(wrapper):
    start = "" if wrapper == "module" else f"{wrapper}."  # a prefix, see above
    names = [f"{start}features.{wrapper}.0.0.weight", f"features.0.{wrapper}.1.weight"]
    (found,) = state_dicts({name: torch.ones(2, 2, 1, 1) for name in names})
    assert list(found.tensors) == ["features.0.0.weight", "features.0.1.weight"]
    assert any(wrapper in note for note in found.notes)


def test_a_prefix_of_unknown_names_is_stripped_if_all_layers_have_it():
    tensors = {f"body.net{i}.conv.weight": torch.ones(1, 1, 1, 1) for i in range(20)}
    (found,) = state_dicts(tensors)
    assert found.prefix == "body."
    (found,) = state_dicts({**tensors, "head.weight": torch.ones(2, 1)})
    assert found.prefix == ""


def test_tensors_beside_the_prefix_are_kept():
    tensors = {f"model.conv{i}.weight": torch.ones(1, 1, 1, 1) for i in range(20)}
    (found,) = state_dicts({"loss.pos_weight": torch.ones(1), **tensors})
    assert found.prefix == "model."
    assert list(found.beside) == ["loss.pos_weight"]
    assert found.order[:2] == ("loss.pos_weight", "conv0.weight")


def test_a_list_of_layers_called_model_is_not_a_wrapper():
    tensors = {f"model.{i}.0.weight": torch.ones(1, 1, 1, 1) for i in range(20)}
    (found,) = state_dicts(tensors)
    assert list(found.tensors) == list(tensors)
    (found,) = state_dicts({f"backbone.{name}": tensor for name, tensor in tensors.items()})
    assert list(found.tensors) == list(tensors)


def test_two_networks_in_one_state_dict_are_two():
    found = state_dicts({**state(1.0, "teacher."), **state(2.0, "student."), "step": torch.ones(1)})
    assert {each.place for each in found} == {"teacher", "student"}
    for each in found:
        assert list(each.tensors) == list(state())
        assert list(each.beside) == ["step"]


def test_names_that_differ_only_by_the_prefix_are_kept_apart():
    tensors = {**state(1.0, "net."), "classifier.1.weight": torch.zeros(2, 2)}
    (found,) = state_dicts(tensors)
    assert list(found.beside) == ["(root).classifier.1.weight"]
    assert len(found.order) == len(tensors)


@pytest.mark.parametrize(
    ("first_place", "second_place", "decided"),
    [
        ({"ema": 1}, {"state_dict": 1}, True),
        ({"state_dict": 1}, {"model": 1}, True),
        ({"model": 1}, {"teacher": 1}, True),
        ({"student": 1}, {"teacher": 1}, False),
        ({"student": {"ema": 1}}, {"teacher": {"model": 1}}, False),
        ({"a": {"ema": 1}}, {"a": {"model": 1}}, True),
    ],
)
def test_documented_places_decide(first_place, second_place, decided):
    def place(tree):
        ((key, inner),) = tree.items()
        return {key: state() if inner == 1 else place(inner)}

    assert precedes(first(place(first_place)), first(place(second_place))) is decided
    assert not precedes(first(place(second_place)), first(place(first_place)))


def test_a_whole_module_in_a_stand_in_is_not_taken_apart(tmp_path):
    from mobiledeploy.checkpoints.read import read_checkpoint

    torch.save({"model": nn.Sequential(nn.Conv2d(3, 4, 1))}, tmp_path / "net.pth")
    assert state_dicts(read_checkpoint(tmp_path / "net.pth").content) == []
