"""Tensors in a state dict that are not weights of the network.

Input: tensors by name. Output: the network's tensors, and notes on what was left out or computed.
Invariant: a tensor is left out only if its name or type shows what it is; others stay, and matching
refuses them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from mobiledeploy.checkpoints.layers import COUNTER, layers_of

_COUNTERS = ("n_averaged", "total_ops", "total_params")  # of AveragedModel and of thop
_OBSERVER = re.compile(
    r"(^|[._])(activation_post_process|\w*fake_quant\w*|\w*observer\w*|_?\w*quantizer\w*)([._]|$)"
)
# First component of the names of modules that only training has: losses, metrics, teachers,
# auxiliary classifiers.
_TRAINING = re.compile(
    r"(crit|criteri(on|a)\w*|\w*loss\w*|objective|cost\w*|b?ce|cross_entropy|focal\w*|\w*metrics?"
    r"|\w*meters?|(train|val|valid|test)_\w+|teacher\w*|aux\w*|discriminator|confusion_matrix"
    r"|conf_?mat|\w*accuracy|acc\d*|\w+_acc\d*|top\d+|auroc|auc|f1\w*|\w+_f1|precision|recall"
    r"|m?iou|best_\w+|ema_\w+|queue\w*|lr|learning_rate|epochs?|\w*steps?|iterations?)"
)
# Last component of the names of a loss's weights and of torchmetrics' states.
_TRAINING_STATE = frozenset(
    {
        *("pos_weight", "class_weight", "class_weights", "loss_weight", "loss_weights", "centers"),
        *("tp", "fp", "tn", "fn", "correct", "total", "confmat"),
    }
)
_SCALE = re.compile(r"temp|tau|scale|gamma|beta|bias|shift|alpha|weight")
_FUSED_NORM = re.compile(r"^(?P<path>.*\.)(?P<number>\d+)\.bn\.(?P<local>\w+)$")
_QUANTIZED = re.compile(r"(^|\.)_packed_params(\.|$)|(^|\.)\w*weight_scale$")
_REPARAMETERIZED = {  # name behind the module's: what it belongs to, and how to remove it
    "weight_g": ("weight normalisation", "torch.nn.utils.remove_weight_norm(module)"),
    "weight_u": ("spectral normalisation", "torch.nn.utils.remove_spectral_norm(module)"),
}
_SHOWN = 4  # names that a note lists


@dataclass(frozen=True, slots=True)
class InputNormalization:
    """The normalisation that a checkpoint's network applies to its input, for pixels in [0, 1].

    Attributes:
        mean: Per channel, or one value for all of them.
        std: Per channel, or one value for all of them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


def without_counters(tensors: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Leave out the counters of averaging and profiling tools, and return a note on them."""
    counters = [name for name in tensors if name.rsplit(".", 1)[-1] in _COUNTERS]
    return _left_out(tensors, counters, "counters of other tools")


def without_observers(
    tensors: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Leave out the state of observers and fake quantizers, and return a note on it.

    A convolution that quantization-aware training fused with its BatchNorm holds that as `bn`. It
    gets the next number again, as in the float network.
    """
    observers = [name for name in tensors if _OBSERVER.search(name)]
    kept, notes = _left_out(
        tensors, observers, "tensors of quantization observers", "; the float weights are loaded"
    )
    if observers:
        kept = {_FUSED_NORM.sub(_next_number, name): tensor for name, tensor in kept.items()}
    return kept, notes


def _next_number(match: re.Match[str]) -> str:
    return f"{match['path']}{int(match['number']) + 1}.{match['local']}"


def with_masks_applied(
    tensors: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Multiply pruned weights by their masks, and return a note on it.

    Known forms: torch.nn.utils.prune (``weight_orig``, ``weight_mask``), masks beside the weight
    (``weight``, ``weight_mask``), and parametrizations with a mask
    (``parametrizations.weight.original``, ``parametrizations.weight.0.mask``).
    """
    result: dict[str, torch.Tensor] = {}
    masks: set[str] = set()
    for name, tensor in tensors.items():
        plain, mask = _pruned(name, tensors)
        if mask is not None and tensors[mask].shape == tensor.shape:
            masks.add(mask)
            result[plain] = tensor * tensors[mask].to(tensor.dtype)
        else:
            result[name] = tensor
    for mask in masks:
        result.pop(mask, None)
    note = f"{len(masks)} pruned tensors were multiplied by their masks."
    return result, [note] if masks else []


def _pruned(name: str, tensors: Mapping[str, torch.Tensor]) -> tuple[str, str | None]:
    """Return the name that a tensor has without pruning, and the name of its mask if it has one."""
    path, _, local = name.rpartition(".")
    start = f"{path}." if path else ""
    plain, mask = name, f"{name}_mask"
    if local.endswith("_orig"):
        plain = f"{start}{local.removesuffix('_orig')}"
        mask = f"{plain}_mask"
    elif local == "original" and ".parametrizations." in f".{path}.":
        owner, _, parameter = path.rpartition(".")
        plain = f"{owner.removesuffix('parametrizations')}{parameter}"
        mask = f"{path}.0.mask"
    return (plain, mask) if mask in tensors else (name, None)


def input_normalization(
    tensors: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], InputNormalization | None]:
    """Separate the mean and std buffers of an input normalisation from the other tensors.

    Values for pixels up to 255 are divided by 255.
    """
    modules = {layer.name for layer in layers_of(tensors) if layer.is_map or layer.is_norm}
    for name, mean in tensors.items():
        std = f"{name.removesuffix('mean')}std"  # mean and std, pixel_mean and pixel_std, ...
        if std == f"{name}std" or std not in tensors or name.rpartition(".")[0] in modules:
            continue
        found = _normalization(mean, tensors[std])
        if found is not None:
            return {k: v for k, v in tensors.items() if k not in (name, std)}, found
    return tensors, None


def _normalization(mean: torch.Tensor, std: torch.Tensor) -> InputNormalization | None:
    """Return a normalisation if two tensors can be one: equal shapes, one value per channel."""
    if mean.shape != std.shape or mean.numel() not in (1, 3, 4):
        return None
    if not (mean.is_floating_point() and std.is_floating_point()):
        return None
    scale = 255.0 if max(float(mean.max()), float(std.max())) > 1 else 1.0
    means, stds = (
        tuple(round(float(value), 6) for value in (tensor.double() / scale).flatten())
        for tensor in (mean, std)
    )
    return InputNormalization(means, stds)


def without_training_state(
    tensors: dict[str, torch.Tensor], *, beside: bool, classes: int | None = None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Leave out the state of losses, metrics and teachers, and return a note on it.

    Args:
        tensors: Tensors by name.
        beside: Whether they lie beside the module that holds the network. Then the name may show at
            any depth what a tensor is, and single numbers are left out if they scale no logits.
        classes: Number of classes of the network; None is that of the last layer.
    """
    layers = [layer for layer in layers_of(tensors) if layer.is_map or layer.is_norm]
    of_layers = {layer.name for layer in layers}
    roots = {name.partition(".")[0] for name in of_layers}
    if classes is None:
        classes = next((layer.shape[0] for layer in reversed(layers) if layer.is_map), 0)
    left_out = []
    for name, tensor in tensors.items():
        path, _, local = name.rpartition(".")
        parts = name.split(".") if beside else [name.partition(".")[0]]
        is_training = any(_TRAINING.fullmatch(part) for part in parts)
        is_loose = path not in of_layers and local != COUNTER
        is_elsewhere = beside or parts[0] not in roots
        is_state = (
            local in _TRAINING_STATE
            or not tensor.is_floating_point()
            or (local == "weight" and tensor.shape == (classes,))  # a loss's, one per class
            or (beside and tensor.numel() == 1 and not _SCALE.search(local))
        )
        if is_training or (is_loose and is_elsewhere and is_state):
            left_out.append(name)
    return _left_out(tensors, left_out, "tensors that inference does not use")


def quantized_names(tensors: Mapping[str, torch.Tensor], others: Mapping[str, str]) -> list[str]:
    """Return the names that show that a state dict is quantized.

    Args:
        tensors: Tensors by name.
        others: Class names of the other entries, by name.
    """
    weights = [name for name, tensor in tensors.items() if tensor.is_quantized]
    objects = [name for name, kind in others.items() if "quant" in kind.lower() and "." in name]
    names = [name for name in (*tensors, *others) if _QUANTIZED.search(name)]
    return list(dict.fromkeys([*weights, *objects, *names]))


def reparameterization(tensors: Iterable[str]) -> tuple[str, str, str] | None:
    """Return the first name of a reparameterised weight, what it is, and how to remove it."""
    for name in tensors:
        local = name.rpartition(".")[2]
        if local in _REPARAMETERIZED:
            return (name, *_REPARAMETERIZED[local])
        if ".parametrizations." in f".{name}":
            remedy = "torch.nn.utils.parametrize.remove_parametrizations(module, name)"
            return name, "a parametrization", remedy
    return None


def _left_out(
    tensors: dict[str, torch.Tensor], names: list[str], what: str, more: str = ""
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Return the other tensors and a note on those that were left out."""
    if not names:
        return tensors, []
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    note = f"{len(names)} {what} were left out ({', '.join(names[:_SHOWN])}{rest}){more}."
    kept = {name: tensor for name, tensor in tensors.items() if name not in set(names)}
    return kept, [note]
