"""Tensors beside a network: what is left out, what is computed, and what is refused."""

import copy
import re

import pytest
import torch
from implementations import distinct
from torch import nn
from torch.nn.utils import parametrize, prune

from mobiledeploy.checkpoints.auxiliary import input_normalization
from mobiledeploy.checkpoints.identify import complete_spec, inspect_checkpoint
from mobiledeploy.checkpoints.load import load_weights
from mobiledeploy.errors import WeightsError
from mobiledeploy.models.build import create, create_on_meta
from mobiledeploy.models.spec import ModelSpec


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


ONE = torch.ones(7)
BESIDE = {
    "class weights": {"criterion.weight": ONE},
    "positive weights": {"loss_fn.pos_weight": ONE},
    "weights of a loss by class": {"ce_loss.weight": ONE},
    "buffer of the module": {"class_weights": ONE},
    "weights by class of an unknown module": {"thing.weight": ONE},
    "weights of a loss by another name": {"objective.alpha": torch.ones(1)},
    "centers of a loss": {"whatever.centers": torch.ones(7, 1280)},
    "metric by another name": {"best.correct": torch.tensor(3.0)},
    "metric": {"val_acc.tp": torch.zeros(7, dtype=torch.int64), "val_acc.fp": ONE},
    "metrics": {"train_metrics.Accuracy.correct": torch.tensor(3.0)},
    "confusion matrix": {"confmat.confmat": torch.zeros(7, 7, dtype=torch.int64)},
    "step": {"global_step": torch.tensor(3)},
    "projection of a loss": {"arc_loss.weight": torch.ones(7, 1280)},
    "teacher": {"teacher.conv1.weight": torch.ones(8, 3, 7, 7), "teacher.fc.bias": ONE},
    "auxiliary classifier": {"aux_head.weight": torch.ones(7, 16), "aux_head.bias": ONE},
    "average": {"n_averaged": torch.tensor(3)},
    "profile": {"features.0.total_ops": torch.zeros(1)},
}


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize("kind", BESIDE)
def test_the_state_of_training_is_left_out_with_a_note(kind, prefix, tensors, saved):
    """At the root, or beside the module that holds the network."""
    beside, network = BESIDE[kind], prefixed(prefix, tensors)
    content = {**beside, **network} if prefix else {**network, **beside}
    _, module, notes = load(saved({"state_dict": content}))
    assert_loaded(module, tensors)
    assert any(next(iter(beside)) in note for note in notes)


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        ({"features.0.2.weight": torch.ones(8)}, r"features\.0\.2"),  # PReLU's slopes
        ({"prelu.weight": torch.ones(1)}, r"prelu"),
        ({"temperature": torch.ones(1)}, r"temperature"),
        ({"logit_bias": torch.ones(7)}, r"logit_bias"),
        ({"features.9.index": torch.arange(8)}, r"features\.9"),
        ({"neck.weight": torch.ones(5, 64)}, r"neck"),
    ],
)
def test_what_may_be_part_of_inference_is_refused(beside, named, tensors, saved):
    with pytest.raises(WeightsError, match=rf"left over: .*{named}"):
        load(saved({**tensors, **beside}))


def test_a_second_linear_layer_that_reads_the_features_is_a_head(tensors, saved):
    with pytest.raises(WeightsError, match=r"several heads: classifier\.1 .*, neck \(5, 1280\)"):
        load(saved({**tensors, "neck.weight": torch.ones(5, 1280)}))


@pytest.mark.ci
@pytest.mark.parametrize("position", ["before", "behind"])
def test_layers_beside_the_network_are_refused(position, tensors, saved):
    """A convolution in front of the network, as for grey images, or another head behind it."""
    beside = {"0.weight": torch.ones(3, 1, 1, 1)} if position == "before" else {}
    beside |= {"2.weight": torch.ones(4, 7)} if position == "behind" else {}
    with pytest.raises(WeightsError, match="has a network at '1' and 1 modules beside it") as error:
        load(saved({**prefixed("1.", tensors), **beside}))
    assert "Save the state dict of the network alone" in error.value.remedy


@pytest.mark.ci
@pytest.mark.parametrize(
    "beside",
    [
        {"0.weight": torch.ones(3), "0.bias": torch.ones(3)},  # InstanceNorm with affine=True
        {"temperature": torch.ones(1)},
        {"head.scale": torch.ones(1)},
        {"logits.bias": torch.ones(7)},
    ],
)
def test_what_may_be_part_of_inference_is_refused_beside_the_network(beside, tensors, saved):
    with pytest.raises(WeightsError, match="beside it that may belong to it"):
        load(saved({**beside, **prefixed("net.", tensors)}))


@pytest.mark.parametrize("name", ["current", "state.value", "ema_loss", "queue_ptr", "best_score"])
def test_single_numbers_beside_the_network_are_left_out(name, tensors, saved):
    _, module, notes = load(saved({**prefixed("net.", tensors), name: torch.tensor(0.5)}))
    assert_loaded(module, tensors)
    assert any(name in note for note in notes)


def test_names_of_losses_do_not_remove_layers_of_the_network(tensors, saved):
    """Names count at the root of the network, or outside of it."""
    _, module, _ = load(saved(prefixed("loss.", tensors)))
    assert_loaded(module, tensors)


# --- pruning --------------------------------------------------------------------------------------


def pruned(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module)
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            prune.random_unstructured(layer, "weight", 0.3)
    return module


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_pruned_weight_is_multiplied_by_its_mask(prefix, small, saved):
    module = pruned(small[1])
    path = saved(prefixed(prefix, module.state_dict()))
    for layer in module.modules():
        if hasattr(layer, "weight_mask"):
            prune.remove(layer, "weight")
    _, loaded, notes = load(path)
    assert_loaded(loaded, module.state_dict())
    assert any("53 pruned tensors were multiplied" in note for note in notes)


def test_masks_beside_the_weights_and_around_them_are_applied(tensors, saved):
    generator = torch.Generator().manual_seed(0)
    layers = [name for name in tensors if name.endswith(".weight") and tensors[name].ndim > 1]
    masks = {n: (torch.rand(tensors[n].shape, generator=generator) > 0.5).float() for n in layers}
    expected = {n: t * masks[n] if n in masks else t for n, t in tensors.items()}
    beside = {**tensors, **{f"{name}_mask": mask for name, mask in masks.items()}}
    wrapped = {}
    for name, tensor in beside.items():  # as nni wraps layers
        path, _, local = name.rpartition(".")
        is_wrapped = f"{path}.weight_mask" in beside and not local.endswith("_mask")
        wrapped[f"{path}.module.{local}" if is_wrapped else name] = tensor
    for content in (beside, wrapped):
        _, loaded, _ = load(saved(content))
        assert_loaded(loaded, expected)


class Mask(nn.Module):
    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * self.mask


def test_a_parametrization_with_a_mask_is_applied(small, saved):
    """As torch.ao.pruning writes it."""
    module = copy.deepcopy(small[1])
    expected = dict(small[1].state_dict())
    for name, layer in list(module.named_modules()):
        if isinstance(layer, nn.Conv2d):
            mask = (torch.rand(layer.weight.shape) > 0.5).float()
            expected[f"{name}.weight"] = layer.weight.detach() * mask
            parametrize.register_parametrization(layer, "weight", Mask(mask))
    _, loaded, _ = load(saved(module.state_dict()))
    assert_loaded(loaded, expected)


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm`:FutureWarning")
@pytest.mark.parametrize(
    ("reparameterize", "named", "remedy"),
    [
        (nn.utils.weight_norm, "weight normalisation", "remove_weight_norm"),
        (nn.utils.spectral_norm, "spectral normalisation", "remove_spectral_norm"),
        (nn.utils.parametrizations.weight_norm, "a parametrization", "remove_parametrizations"),
    ],
)
def test_other_reparameterised_weights_are_named(reparameterize, named, remedy, small, saved):
    module = copy.deepcopy(small[1])
    reparameterize(module.features[0][0])
    with pytest.raises(WeightsError, match=rf"features\.0\.0.* is part of {named}") as error:
        load(saved(module.state_dict()))
    assert remedy in error.value.remedy


# --- quantization ---------------------------------------------------------------------------------


def test_observers_and_fake_quantizers_are_left_out_with_a_note(tensors, saved):
    """A network in quantization-aware training, as torch.ao.quantization prepares it."""
    state = {
        **tensors,
        "features.0.0.activation_post_process.scale": torch.ones(1),
        "features.0.0.activation_post_process.fake_quant_enabled": torch.tensor([1]),
        "features.0.0.weight_fake_quant.activation_post_process.min_val": torch.ones(8),
        "quant.activation_post_process.max_val": torch.tensor(2.0),
        "activation_post_process_0.zero_point": torch.tensor([0]),
        "features.1.conv.1._input_quantizer._amax": torch.tensor(2.0),
    }
    _, module, notes = load(saved(state))
    assert_loaded(module, tensors)
    assert any("6 tensors of quantization observers were left out" in note for note in notes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("family", ["v2", "v3-small"])
def test_a_network_in_quantization_aware_training_is_loaded(family, saved):
    """As torch.ao.quantization prepares it: BatchNorm fused, fake quantizers everywhere."""
    module = distinct(ModelSpec(family=family, width=0.25, num_classes=7)).train()
    expected = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modules = dict(module.named_modules())
    pairs = []
    for name, layer in modules.items():
        path, _, number = name.rpartition(".")
        norm = f"{path}.{int(number) + 1}" if number.isdecimal() else ""
        if isinstance(layer, nn.Conv2d) and isinstance(modules.get(norm), nn.BatchNorm2d):
            pairs.append([name, norm])
    fused = torch.ao.quantization.fuse_modules_qat(module, pairs)
    fused.qconfig = torch.ao.quantization.get_default_qat_qconfig("x86")
    prepared = torch.ao.quantization.prepare_qat(fused)
    _, loaded, notes = load(saved(prepared.state_dict()))
    assert_loaded(loaded, expected)
    assert any("tensors of quantization observers were left out" in note for note in notes)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_quantized_state_dict_is_named_as_one(small, saved):
    quantized = torch.ao.quantization.quantize_dynamic(copy.deepcopy(small[1]), {nn.Linear})
    with pytest.raises(WeightsError, match=r"is a quantized state dict .*_packed_params") as error:
        load(saved(quantized.state_dict()))
    assert "float checkpoint" in error.value.remedy


class QuantizedWeight:
    """As torchao's tensor subclasses appear where they are not installed."""


def test_objects_in_place_of_quantized_weights_are_named_as_such(tensors, saved):
    state = {**tensors, "classifier.1.weight": QuantizedWeight()}
    with pytest.raises(WeightsError, match=r"is a quantized state dict .*classifier\.1\.weight"):
        load(saved(state))


def test_quantized_tensors_are_named_as_such(tensors, saved):
    weight = torch.quantize_per_tensor(tensors["features.0.0.weight"], 0.1, 0, torch.qint8)
    message = r"is a quantized state dict \(1 quantized tensors, for example features\.0\.0\.weight"
    with pytest.raises(WeightsError, match=message):
        load(saved({**tensors, "features.0.0.weight": weight}))


# --- input normalisation --------------------------------------------------------------------------

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [
        (("mean", "std"), ""),
        (("0.mean", "0.std"), "1."),
        (("normalize.mean", "normalize.std"), "net."),
        (("pixel_mean", "pixel_std"), "backbone."),
        (("data_preprocessor.mean", "data_preprocessor.std"), "model."),
        (("imagenet_mean", "imagenet_std"), ""),
    ],
)
@pytest.mark.parametrize(("scale", "shape"), [(1, (3,)), (255, (3, 1, 1)), (1, (1, 3, 1, 1))])
def test_an_input_normalisation_becomes_the_preprocessing(
    names, prefix, scale, shape, small, saved
):
    buffers = (torch.tensor(values).reshape(shape) * scale for values in (MEAN, STD))
    state = {**dict(zip(names, buffers, strict=True)), **prefixed(prefix, small[1].state_dict())}
    info, module, notes = load(saved(state))
    assert_loaded(module, small[1].state_dict())
    assert info.preprocessing.mean == pytest.approx(MEAN, abs=1e-6)
    assert info.preprocessing.std == pytest.approx(STD, abs=1e-6)
    assert any("normalises its input itself" in note and "--mean" in note for note in notes)


def test_one_value_is_the_normalisation_of_every_channel(tensors, saved):
    half = torch.tensor([0.5])
    info, *_ = load(saved({**tensors, "mean": half, "std": half}))
    assert (info.preprocessing.mean, info.preprocessing.std) == ((0.5,) * 3, (0.5,) * 3)


def test_a_normalisation_of_other_channels_is_refused(tensors, saved):
    buffers = {"mean": torch.zeros(4), "std": torch.ones(4)}
    message = "normalises its input with mean .*; the network has 3 input channels"
    with pytest.raises(WeightsError, match=re.compile(message)):
        load(saved({**tensors, **buffers}))


def test_statistics_that_are_no_normalisation_stay():
    for mean, std in ((torch.zeros(5), torch.ones(5)), (torch.zeros(3).int(), torch.ones(3).int())):
        tensors = {"mean": mean, "std": std}
        assert input_normalization(tensors) == (tensors, None)
