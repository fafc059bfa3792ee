"""What may differ from training although every tensor fits: one changed network or input each.

Input: a `BuiltNetwork`. Output: `Alternative`s, each with one assumption replaced by another that
is common: the normalisation, the resolution, epsilon, the padding, strides, the
activation. The network that was trained is among them if one assumption was wrong.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from mobiledeploy.models.blocks import SamePaddingConv2d

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from mobiledeploy.network import Preprocessing

    Images = NDArray[np.float32]
    Values = tuple[float, ...]

_NORMALISATIONS = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "ImageNet's mean and std"),
    ((0.5,) * 3, (0.5,) * 3, "pixels in [-1, 1]"),
    ((0.0,) * 3, (1.0,) * 3, "pixels in [0, 1]"),
    ((0.0,) * 3, (1 / 255,) * 3, "pixels from 0 to 255"),
)
_EPSILONS = (1e-5, 1e-4, 1e-3, 1e-2)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU)
_RESOLUTIONS = (32, 48, 64, 96, 112, 128, 160, 192, 224, 256, 320)
_LARGEST_GROWTH = 2  # times the resolution: more would take minutes
_STRIDED_STAGES = 3  # at most so many leading strides are removed


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltNetwork:
    """A network as built, and what its alternatives are made from.

    Attributes:
        module: The network.
        preprocessing: How its images are preprocessed.
        resolution: Side of its images in pixels.
        published: Returns the architecture with the strides and activations of its paper, layer by
            layer like `module`, on any device; None leaves these alternatives out.
        images_at: Maps a resolution and a count to that many of its images, evenly spread, as
            preprocessed for this resolution; None leaves the resolutions out.
    """

    module: nn.Module
    preprocessing: Preprocessing
    resolution: int
    published: Callable[[], nn.Module] | None = None
    images_at: Callable[[int, int], Images] | None = None


def _unchanged(images: Images) -> Images:
    return images


@dataclass(frozen=True, slots=True)
class Alternative:
    """The network, or its input, with one assumption replaced.

    Attributes:
        cause: What would have been wrong, for example "the normalisation".
        description: What is assumed instead, for example "pixels in [0, 1]".
        remedy: How a user tries it.
        module: The network that is assumed.
        inputs: Returns its input for images of the built network, both (N, C, H, W).
    """

    cause: str
    description: str
    remedy: str
    module: nn.Module
    inputs: Callable[[Images], Images] = _unchanged


def alternatives(built: BuiltNetwork) -> Iterator[Alternative]:
    """Yield every alternative."""
    published = None if built.published is None else built.published()
    yield from _other_inputs(built.module, built.preprocessing)
    yield from _other_epsilons(built.module)
    yield _other_padding(built.module)
    yield from _other_strides(built.module, published)
    yield from _other_activations(built.module, published)
    if built.images_at is not None:
        yield from _other_resolutions(built.module, built.resolution, built.images_at)


def _other_inputs(module: nn.Module, preprocessing: Preprocessing) -> Iterator[Alternative]:
    mean, std = (_per_channel(values) for values in (preprocessing.mean, preprocessing.std))
    channels = len(preprocessing.mean)

    def normalized(means: Values, stds: Values) -> Callable[[Images], Images]:
        shift, scale = _per_channel(means), _per_channel(stds)
        return lambda images: ((images * std + mean - shift) / scale).astype(np.float32)

    def reversed_channels(images: Images) -> Images:
        pixels = images * std + mean
        return ((pixels[:, ::-1] - mean) / std).astype(np.float32)

    for other_mean, other_std, description in _NORMALISATIONS:
        means, stds = other_mean[:channels], other_std[:channels]
        if channels > 3 or np.allclose([*mean.ravel(), *std.ravel()], [*means, *stds], atol=1e-6):
            continue
        yield Alternative(
            "the normalisation",
            description,
            f"pass --mean {_joined(means)} --std {_joined(stds)}",
            module,
            normalized(means, stds),
        )
    yield Alternative(
        "the normalisation",
        "images that are normalised once, not twice",
        f"pass --mean {_joined((0.0,) * channels)} --std {_joined((1.0,) * channels)}",
        module,
        normalized((0.0,) * channels, (1.0,) * channels),
    )
    if channels == 3:
        yield Alternative(
            "the order of the channels",
            "BGR images",
            "convert the images from BGR to RGB",
            module,
            reversed_channels,
        )


def _other_epsilons(module: nn.Module) -> Iterator[Alternative]:
    now = next(layer.eps for layer in module.modules() if isinstance(layer, nn.BatchNorm2d))
    for eps in _EPSILONS:
        if np.isclose(eps, now, rtol=0.1):
            continue
        other = _copied(module)
        for layer in other.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eps = eps
        yield Alternative(
            "BatchNorm's epsilon",
            f"an epsilon of {eps:g}",
            f"set norm_eps: {eps:g} under architecture: in --config",
            other,
        )


def _other_padding(module: nn.Module) -> Alternative:
    other = _copied(module)
    is_same = any(isinstance(layer, SamePaddingConv2d) for layer in module.modules())
    for layer in other.modules():
        if isinstance(layer, nn.Conv2d) and layer.kernel_size[0] > 1:
            layer.__class__ = nn.Conv2d if is_same else SamePaddingConv2d
    padding = "symmetric" if is_same else "same"
    return Alternative(
        "the padding",
        f"{padding} padding, as in {'PyTorch' if is_same else 'TensorFlow'}",
        f"set padding: {padding} under architecture: in --config",
        other,
    )


def _other_strides(module: nn.Module, published: nn.Module | None) -> Iterator[Alternative]:
    cause = "the strides"
    convolutions = _convolutions(module)
    strided = [i for i, conv in enumerate(convolutions) if conv.stride[0] > 1]
    for count in range(1, min(_STRIDED_STAGES, len(strided)) + 1):
        first = strided[:count]
        if count == 1 and first != [0]:
            continue
        where = "the stem" if count == 1 else f"the first {count} convolutions of stride 2"
        remedy = "stem_stride: 1" if count == 1 else "stem_stride: 1 and rows of stride 1"
        yield Alternative(
            cause,
            f"stride 1 in {where}",
            f"set {remedy} under architecture: in --config",
            _with_strides(module, dict.fromkeys(first, (1, 1))),
        )
    if convolutions[0].stride[0] == 1:
        yield Alternative(
            cause,
            "stride 2 in the stem",
            "set stem_stride: 2 under architecture: in --config",
            _with_strides(module, {0: (2, 2)}),
        )
    # of another row table the layers do not correspond, and strides would not fit its shortcuts
    if published is not None and _shapes(published) == _shapes(module):
        original = {i: conv.stride for i, conv in enumerate(_convolutions(published))}
        if [conv.stride for conv in convolutions] != list(original.values()):
            yield Alternative(
                cause,
                "the paper's strides",
                "leave rows and stem_stride out of --config",
                _with_strides(module, original),
            )


def _other_activations(module: nn.Module, published: nn.Module | None) -> Iterator[Alternative]:
    cause = "the activation"
    now = list(_activations(module).values())
    if published is not None:
        kinds = list(_activations(published).values())
        if len(kinds) == len(now) and kinds != now:
            yield Alternative(
                cause,
                "the paper's activations",
                "leave rows and activation out of --config",
                _with_activations(module, kinds),
            )
    for kind in _ACTIVATIONS:
        if set(now) != {kind}:
            yield Alternative(
                cause,
                f"{kind.__name__} everywhere",
                "set the activation of the training code (activation: or rows: in --config)",
                _with_activations(module, [kind] * len(now)),
            )


def _other_resolutions(
    module: nn.Module, side: int, images_at: Callable[[int, int], Images]
) -> Iterator[Alternative]:
    def at(resolution: int) -> Callable[[Images], Images]:
        return lambda images: images_at(resolution, len(images))

    for resolution in _RESOLUTIONS:
        if resolution == side or resolution > _LARGEST_GROWTH * side:
            continue
        yield Alternative(
            "the resolution",
            f"images of {resolution}x{resolution} pixels",
            f"pass --resolution {resolution}",
            module,
            at(resolution),
        )


def _per_channel(values: Values) -> NDArray[np.float32]:
    return np.array(values, np.float32)[:, None, None]


def _joined(values: Values) -> str:
    return ",".join(f"{value:.5g}" for value in values)


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy that shares all tensors with the original."""
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


def _convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions in the order of definition."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]


def _shapes(module: nn.Module) -> list[tuple[int, ...]]:
    """Return the shapes of the convolutions' weights."""
    return [tuple(conv.weight.shape) for conv in _convolutions(module)]


def _with_strides(module: nn.Module, strides: dict[int, tuple[int, ...]]) -> nn.Module:
    """Return a copy in which the convolutions with these indices have other strides."""
    other = _copied(module)
    for index, conv in enumerate(_convolutions(other)):
        if index in strides:
            height, width = strides[index]
            conv.stride = (height, width)
    return other


def _activations(module: nn.Module) -> dict[str, type[nn.Module]]:
    """Return the activations' types by module name, in the order of definition."""
    return {
        name: type(layer)
        for name, layer in module.named_modules()
        if isinstance(layer, _ACTIVATIONS)
    }


def _with_activations(module: nn.Module, kinds: list[type[nn.Module]]) -> nn.Module:
    """Return a copy with other activations, one kind for each, in the order of definition."""
    other = _copied(module)
    for name, kind in zip(_activations(module), kinds, strict=True):
        parent, _, child = name.rpartition(".")
        setattr(other.get_submodule(parent), child, kind())
    return other
