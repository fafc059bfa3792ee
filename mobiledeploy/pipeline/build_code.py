"""First stage for a network of the user's own: from code that the user names, or from a module."""

from __future__ import annotations

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from mobiledeploy.checkpoints.load_module import digest_of_state, load_state
from mobiledeploy.data.labels import load_labels
from mobiledeploy.data.preprocess import (
    check_preprocessing,
    complete_preprocessing,
    default_preprocessing,
)
from mobiledeploy.errors import UsageError
from mobiledeploy.models.code_source import source_file, source_of
from mobiledeploy.models.code_spec import CodeSpec
from mobiledeploy.models.final_activations import without_final_activations
from mobiledeploy.models.initialize import BatchNorm, initialize, randomize_batch_norm
from mobiledeploy.models.run_code import build_module
from mobiledeploy.models.validate import validate_input, validate_resolution
from mobiledeploy.network import Preprocessing, WeightsProvenance, sides_of
from mobiledeploy.pipeline.code_outputs import is_plain, outputs_of_module, require_activation
from mobiledeploy.stages import FloatModel
from mobiledeploy.utils.arguments import StrPath, as_names, as_path, require_instance
from mobiledeploy.utils.files import sha256_of
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.threads import on_one_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mobiledeploy.models.code_spec import Argument
    from mobiledeploy.network import Activation, ImageSize, InputName, Task


@on_one_thread
def build_code(
    code: str,
    *,
    arguments: Mapping[str, Argument] | None = None,
    weights: str | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    labels: StrPath | None = None,
    task: Task | None = None,
    outputs: str | Sequence[str] = (),
    activation: Activation = "none",
    resolution: ImageSize = 224,
    in_channels: int = 3,
    input: InputName = "float",  # noqa: A002 - the name of the option
    seed: int = 0,
) -> FloatModel:
    """Build a network by calling the user's code, and load its weights.

    Args:
        code: "FILE:CALLABLE" or "package.module:callable". It is imported and called.
        arguments: Keyword arguments of the callable.
        weights: The path of a checkpoint, or "random"; None keeps what the callable returns.
        preprocessing: Differences from ImageNet's preprocessing, or all of it.
        labels: A text file with one class name per line, or "imagenet".
        task: What the outputs mean; by default classes, or regression for a single output.
        outputs: "NAME:TASK" or "NAME" for each output, in order; those of a dict have names of
            their own. By default a map for an image, else as for `task`.
        activation: What artifacts compute from the logits of the first output: "softmax" or
            "sigmoid", or "none".
        resolution: Size of the input in pixels, the side of a square or (height, width).
        in_channels: Channels of the input image.
        input: What artifacts take: "float", normalised planes, or the name of a pixel format.
        seed: Seed of torch while the callable runs, and of random weights.

    Raises:
        UsageError: the code does not name a callable that returns a network, or the network has
            other outputs.
        LoadError: the code cannot be found or fails, or a file cannot be read.
        WeightsError: the checkpoint does not fit the network.
    """
    if weights == "imagenet":
        raise UsageError(
            "There are no published weights for a network from code.",
            remedy="Pass --weights PATH, --weights random, or let the code load its weights.",
        )
    validate_input(input, in_channels)
    outputs = as_names(outputs)
    place, name = source_of(code)
    with step("Building the network"):
        digest = sha256_of(source_file(place))
        module = build_module(code, arguments or {}, seed)
        size = sides_of(_checked(resolution))
        found = outputs_of_module(module, (1, in_channels, *size), outputs, task)
        require_activation(found[0], activation)
        provenance = _load(module, weights, code, seed, size)
    spec = CodeSpec(
        code=code,
        code_sha256=digest,
        arguments=dict(arguments or {}),
        resolution=resolution,
        num_classes=found[0].size,
        in_channels=in_channels,
        input=input,
        weights=weights or "",
        seed=seed,
        task=found[0].task if outputs else task,
        outputs=() if is_plain(found) else found,
        activation=activation,
        title=f"{Path(place).stem if place.endswith('.py') else place}_{name}",
    )
    names = load_labels(as_path(labels, "labels"), spec.num_classes) if labels is not None else ()
    return _float_model(module, spec, provenance, preprocessing, names)


@on_one_thread
def from_module(
    module: nn.Module,
    *,
    input_shape: Sequence[int] = (3, 224, 224),
    preprocessing: Preprocessing | Mapping[str, Any] | None = None,
    labels: StrPath | Sequence[str] = (),
    task: Task | None = None,
    outputs: str | Sequence[str] = (),
    activation: Activation = "none",
    name: str | None = None,
    input: InputName = "float",  # noqa: A002 - the name of the option
) -> FloatModel:
    """Take a network that already exists, as `build` returns one.

    An artifact of it cannot be built again from its manifest, because the module's code is not
    known: `deploy` checks it, while `mobiledeploy parity` and `reproduce` refuse it. Name the code
    instead where that matters: ``build("net.py:create", weights="best.pth")``.

    Args:
        module: Maps images (N, C, H, W) to a tensor (N, ...), or to a tuple, list or dict of them.
            It is set to eval mode.
        input_shape: Channels, height and width of the input, or these after a batch of 1.
        preprocessing: Differences from ImageNet's preprocessing, or all of it.
        labels: Class names, or a text file with one per line; empty if unknown.
        task: What the outputs mean; by default classes, or regression for a single output.
        outputs: "NAME:TASK" or "NAME" for each output, in order; those of a dict have names of
            their own. By default a map for an image, else as for `task`.
        activation: What artifacts compute from the logits of the first output: "softmax" or
            "sigmoid", or "none".
        name: Name of the network in file names; by default that of its class.
        input: What artifacts take: "float", normalised planes, or the name of a pixel format.

    Raises:
        UsageError: the module does not compute such outputs from such images.
    """
    remedy = 'Pass the network itself; code is named in `build`, as "net.py:create".'
    require_instance(module, nn.Module, "module", remedy)
    channels, height, width = _image_shape(input_shape)
    outputs = as_names(outputs)
    module = module.eval()
    validate_input(input, channels)
    found = outputs_of_module(module, (1, channels, height, width), outputs, task)
    require_activation(found[0], activation)
    spec = CodeSpec(
        code="",
        resolution=_checked(height if height == width else (height, width)),
        num_classes=found[0].size,
        in_channels=channels,
        input=input,
        task=found[0].task if outputs else task,
        outputs=() if is_plain(found) else found,
        activation=activation,
        title=name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(module).__name__).lower(),
    )
    if isinstance(labels, (str, PathLike)):
        labels = load_labels(as_path(labels, "labels"), spec.num_classes)
    if len(labels) not in (0, spec.num_classes):
        raise UsageError(f"There are {len(labels)} labels for {spec.num_classes} outputs.")
    return _float_model(
        module, spec, _as_returned(module, spec.title), preprocessing, tuple(labels)
    )


def _image_shape(input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Return (channels, height, width), given with or without a batch of 1."""
    shape = tuple(input_shape) if isinstance(input_shape, Sequence) else (input_shape,)
    if len(shape) == 4 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 3 or not all(isinstance(side, int) for side in shape):
        raise UsageError(f"input_shape is {input_shape!r}; expected (C, H, W) or (1, C, H, W).")
    return shape


def _load(
    module: nn.Module, weights: str | None, code: str, seed: int, size: tuple[int, int]
) -> WeightsProvenance:
    """Give a module, which reads images of `size`, the weights that were asked for."""
    if weights is None:
        return _as_returned(module, code)
    if weights != "random":
        return load_state(module, weights)
    initialize(module, seed)
    if any(isinstance(layer, BatchNorm) for layer in module.modules()):
        randomize_batch_norm(module, seed, size)
    return WeightsProvenance(source="random", origin=f"seed {seed}")


def _as_returned(module: nn.Module, origin: str) -> WeightsProvenance:
    return WeightsProvenance(
        source="code",
        origin=origin,
        sha256=digest_of_state(module),
        notes=("The weights are those that the code returned.",),
    )


def _checked(resolution: ImageSize) -> ImageSize:
    validate_resolution(resolution)
    return resolution


def _float_model(
    module: nn.Module,
    spec: CodeSpec,
    provenance: WeightsProvenance,
    preprocessing: Preprocessing | Mapping[str, Any] | None,
    labels: tuple[str, ...],
) -> FloatModel:
    implied = default_preprocessing(spec.in_channels)
    whole = complete_preprocessing(preprocessing, implied)
    check_preprocessing(whole, spec.in_channels)
    info = spec.network_info(provenance, whole, labels)
    ends_in_activation = any(each.activation != "none" for each in spec.outputs)
    shortened = without_final_activations(module) if ends_in_activation else module
    return FloatModel(info=info, module=shortened)
