"""Readable checkpoints that do not fit are refused, each with the reason."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from golden_state import golden_state
from implementations import distinct
from refused_checkpoints import refused_by_inspection
from torch import nn

from mobiledeploy.checkpoints.identify import complete_spec, inspect_checkpoint
from mobiledeploy.checkpoints.load import load_weights
from mobiledeploy.checkpoints.resolve import resolve
from mobiledeploy.errors import MobileDeployError, WeightsError
from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.spec import ModelSpec


def refused_by_loading(spec: ModelSpec, path, message) -> WeightsError:
    """Expect loading into a network of `spec` to fail and to leave it unchanged."""
    spec = replace(spec, weights=str(path))
    module = create(spec)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(WeightsError, match=message) as error:
        load_weights(module, spec)
    assert error.value.exit_code == 3
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} was changed"
    return error.value


def refused_by_contradiction(path, spec: ModelSpec, given: set[str], message) -> None:
    info = inspect_checkpoint(path, create_on_meta)
    with pytest.raises(WeightsError, match=message) as error:
        complete_spec(info, spec, given)
    assert error.value.exit_code == 3


# --- contradictions with what was asked for -------------------------------------------------------


def test_a_wrong_family_is_refused(saved, small):
    path, asked = saved(), ModelSpec(family="v3-large")
    refused_by_contradiction(path, asked, set(), "has family v2; requested was family v3-large")
    refused_by_loading(replace(small[0], family="v1"), path, "does not fit the network")


def test_a_wrong_class_count_is_refused(saved, small):
    path, asked = saved(), replace(small[0], num_classes=10)
    refused_by_contradiction(
        path, asked, {"num_classes"}, "has num_classes 7; requested was num_classes 10"
    )
    refused_by_loading(
        asked,
        path,
        r"2 misshapen: classifier\.1\.weight is \(7, 1280\), expected \(10, 1280\), classifier",
    )


def test_a_wrong_width_is_refused(saved, small):
    path, asked = saved(), replace(small[0], width=0.5)
    refused_by_contradiction(path, asked, {"width"}, "has width 0.25; requested was width 0.5")
    refused_by_loading(asked, path, r"misshapen: features\.0\.0\.weight is \(8, 3, 3, 3\)")


def test_three_channels_do_not_become_one(saved, small):
    path, asked = saved(), replace(small[0], in_channels=1)
    refused_by_contradiction(
        path, asked, {"in_channels"}, "has in_channels 3; requested was in_channels 1"
    )
    refused_by_loading(
        asked, path, r"features\.0\.0\.weight is \(8, 3, 3, 3\), expected \(8, 1, 3, 3\)"
    )


def test_several_contradictions_are_named_at_once(saved):
    asked = ModelSpec(family="v1", width=0.5, num_classes=10)
    refused_by_contradiction(
        saved(),
        asked,
        {"family", "width", "num_classes"},
        "has family v2, width 0.25, num_classes 7; requested was family v1, width 0.5, num_",
    )


def test_defaults_contradict_nothing(saved, small):
    info = inspect_checkpoint(saved(), create_on_meta)
    asked = ModelSpec(family="v2", resolution=96, seed=3)
    found = complete_spec(info, asked, {"family", "resolution"})
    assert found == replace(small[0], resolution=96, seed=3)


# --- tensors that are missing, left over, misshapen ----------------------------------------------


def test_extra_keys_are_refused_and_named(saved, small):
    path = saved({**small[1].state_dict(), "neck.weight": torch.ones(7, 1280, 1, 1)})
    message = r"1 left over: neck\.weight"
    refused_by_loading(small[0], path, message)
    refused_by_inspection(path, message)


def test_missing_keys_are_refused_and_named(saved, small):
    state = dict(small[1].state_dict())
    del state["features.3.conv.2.weight"], state["features.3.conv.1.1.running_var"]
    message = r"2 missing: features\.3\.conv\.1\.1\.running_var, features\.3\.conv\.2\.weight\."
    refused_by_loading(small[0], saved(state), message)
    refused_by_inspection(saved(state), message)


def test_counters_that_may_be_missing_are_not_listed_with_what_is(saved, small):
    state = {k: v for k, v in small[1].state_dict().items() if not k.endswith("tracked")}
    del state["features.3.conv.2.weight"]
    refused_by_loading(
        small[0], saved(state), r"network: 1 missing: features\.3\.conv\.2\.weight\."
    )


def test_a_misspelt_key_is_named_with_the_nearest(saved, small):
    state = dict(small[1].state_dict())
    state["features.3.conv.2.wieght"] = state.pop("features.3.conv.2.weight")
    refused_by_loading(
        small[0],
        saved(state),
        r"1 missing: features\.3\.conv\.2\.weight \(nearest: features\.3\.conv\.2\.wieght\); "
        r"1 left over: features\.3\.conv\.2\.wieght \(nearest: features\.3\.conv\.2\.weight\)",
    )


def test_misshapen_tensors_are_refused_and_named(saved, small):
    state = {**small[1].state_dict(), "features.0.1.bias": torch.zeros(9)}
    refused_by_loading(
        small[0], saved(state), r"1 misshapen: features\.0\.1\.bias is \(9,\), expected \(8,\)"
    )


def test_layers_that_were_swapped_by_name_are_not_paired_by_structure(saved, small):
    """Two tensors under one another's names are the checkpoint's own business: names decide."""
    state = dict(small[1].state_dict())
    a, b = "features.8.conv.0.0.weight", "features.9.conv.0.0.weight"
    state = {({a: b, b: a}.get(name, name)): tensor for name, tensor in state.items()}
    spec = replace(small[0], weights=str(saved(state)))
    module = create(spec)
    load_weights(module, spec)
    assert torch.equal(module.state_dict()[a], small[1].state_dict()[b])


def test_structural_differences_are_named(saved, small):
    """Other names than anybody's, and one layer more than the network has."""
    state = {f"backbone_{k.replace('.', '_', 1)}": v for k, v in small[1].state_dict().items()}
    state["neck.weight"] = torch.ones(5, 1280)
    refused_by_loading(small[0], saved(state), r"1 left over: neck \(5, 1280, 1, 1\)")


def test_long_lists_are_cut_and_counted(saved, small):
    state = {k: v for k, v in small[1].state_dict().items() if not k.startswith("features.1")}
    error = refused_by_loading(small[0], saved(state), r"\d+ missing: .* and \d+ more")
    assert len(error.message) < 600


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused(saved, small, value):
    state = {name: tensor.clone() for name, tensor in small[1].state_dict().items()}
    state["features.5.conv.1.0.weight"][3, 0, 1, 1] = value
    refused_by_loading(
        small[0],
        saved(state),
        r"features\.5\.conv\.1\.0\.weight has 1 values of 432 that are NaN or",
    )


def test_values_beyond_float32_are_refused(saved, small):
    state = {name: tensor.double() for name, tensor in small[1].state_dict().items()}
    state["features.0.1.weight"][0] = 1e39
    refused_by_loading(
        small[0], saved(state), r"features\.0\.1\.weight has 1 values .* infinite in float32"
    )


def test_a_negative_variance_is_refused(saved, small):
    state = {name: tensor.clone() for name, tensor in small[1].state_dict().items()}
    state["features.0.1.running_var"][0] = -0.1
    refused_by_loading(
        small[0], saved(state), r"features\.0\.1\.running_var is a variance and negative"
    )


def test_a_layer_whose_variances_are_all_zero_is_refused(saved, small):
    spec, module = small
    name = "features.1.conv.0.1.running_var"
    fault = "is a variance and zero in every channel"
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state[name][1:] = 0
    load_weights(create(spec), replace(spec, weights=str(saved(state))))  # dead channels
    state[name][0] = 0
    refused_by_loading(spec, saved(state), f"{name} {fault}")
    zero = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
    refused_by_loading(spec, saved(zero), fault)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda tensor: tensor.to(torch.int8), r"is torch\.int8"),
        (lambda tensor: tensor.to(torch.complex64), r"is torch\.complex64"),
        (lambda tensor: tensor.to(torch.float8_e4m3fn), r"is torch\.float8_e4m3fn"),
        (lambda tensor: tensor.to_sparse(), r"torch\.sparse_coo"),
        (lambda tensor: tensor.to("meta"), "has no values"),
    ],
)
def test_weights_that_are_not_dense_floats_are_refused(saved, small, change, fault):
    state = {**small[1].state_dict()}
    state["features.0.0.weight"] = change(state["features.0.0.weight"])
    message = rf"features\.0\.0\.weight .*{fault}.*; expected dense floating point"
    refused_by_loading(small[0], saved(state), message)


def test_a_counter_with_several_values_is_refused(saved, small):
    state = {**small[1].state_dict(), "features.0.1.num_batches_tracked": torch.zeros(3).long()}
    refused_by_loading(small[0], saved(state), "num_batches_tracked has 3 values, expected 1")


def test_shapes_are_compared_also_when_structure_pairs_layers(saved, small):
    state = {f"net_{k.replace('.', '_', 1)}": v for k, v in small[1].state_dict().items()}
    state["net_features_0.1.bias"] = torch.zeros(9)
    refused_by_loading(
        small[0],
        saved(state),
        r"1 misshapen: net_features_0\.1\.bias is \(9,\), expected \(8,\) for features\.0\.1",
    )


def test_a_huge_expanded_tensor_is_refused_by_its_shape(saved, small):
    """Four bytes with strides of zero describe 4 exabytes: nothing may ever copy them."""
    state = {**small[1].state_dict(), "classifier.1.bias": torch.zeros(1).expand(10**18)}
    refused_by_loading(small[0], saved(state), r"classifier\.1\.bias is \(1000000000000000000,\)")


# --- other networks ------------------------------------------------------------------------------


def test_another_network_is_refused_as_no_mobilenet(saved):
    layers = [nn.Conv2d(3, 64, 7), *[nn.Sequential(nn.Conv2d(64, 64, 3)) for _ in range(20)]]
    path = saved(nn.Sequential(*layers, nn.Linear(64, 10)).state_dict())
    refused_by_inspection(path, r"is not a MobileNet: of its 22 layers and the \d+ of the closest")


def test_tensors_without_layers_are_refused(saved):
    refused_by_inspection(saved({"scale": torch.ones(3)}), "holds no convolution and no linear")


def test_a_v3_with_unknown_names_is_refused(saved):
    """Some squeeze before the activation, others after it, with the same tensors."""
    spec = ModelSpec(family="v3-small", width=0.5, num_classes=7)
    state = distinct(spec).state_dict()
    names = {f"net_{name.replace('.', '_', 1)}": tensor for name, tensor in state.items()}
    refused_by_inspection(saved(names), "has the layers of a v3-small, .*squeeze")


def test_a_network_built_without_the_dialects_padding_is_refused(saved):
    file = Path(__file__).parent / "golden/transformers-mobilenet_v2_0.35.json"
    shapes = json.loads(file.read_text())["shapes"]
    path = saved(golden_state({key: tuple(shape) for key, shape in shapes.items()}, 7))
    spec = ModelSpec(family="v2", width=0.35, num_classes=10)
    refused_by_loading(spec, path, "networks have padding same; this one was built with symme")


@pytest.mark.ci
def test_no_foreign_exception_reaches_the_user(saved):
    """Malformed checkpoints raise errors of this package."""
    cases = [
        {"weight": torch.zeros(0)},
        {"a.weight": torch.zeros(2, 2, 2)},
        {"features.0.0.weight": torch.zeros(8, 3, 3, 3)},
        {"conv_stem.weight": torch.zeros(8, 3, 3, 3), "blocks.x.y.weight": torch.zeros(1)},
        {"mobilenet_v1.conv_stem.convolution.weight": torch.zeros(8, 3, 3, 3)},
        {1: torch.zeros(3)},
        {"features.0.0.weight": torch.zeros(8, 3, 3, 3).to_sparse()},
    ]
    for case in cases:
        with pytest.raises(MobileDeployError):
            resolve(ModelSpec(family="v2", weights=str(saved(case))), {"family"}, create_on_meta)
