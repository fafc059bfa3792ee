"""Preprocessing folding: the first convolution reads 8-bit pixels instead of normalised planes.

Input: a `FoldedModel` whose `info.input.format` is pixels. Output: the same network with planes of
pixel values in [0, 255] as its input, in the format's channel order.
Maths: (p / 255 - mean) / std is affine, so the factor goes into the weights:

    w'[o, c] = w[o, c] / (255 std[c])                              for a colour channel c
    w'[o, A] = -sum over c of w'[o, c] mean[c]                     for the alpha channel A

tap by tap. A pixel's alpha is 255, which makes the shift, -255 sum of w' mean. A bias could not
make it: padding is zero in all four channels, alpha too, so outside of the image there is no shift.
There the trained network reads zeros, too.
Formats without alpha are padded to four channels with the value 255 inside the network: the first
added channel is alpha, the weights of any others are zero.
Invariant: for opaque pixels the function stays the same, borders included, to 1e-9 in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from mobiledeploy.errors import UsageError
from mobiledeploy.graph.aten_graph import trace
from mobiledeploy.graph.canonical_graph import record_shapes
from mobiledeploy.graph.fused_ops import OPAQUE, OPAQUE_CHANNELS
from mobiledeploy.graph.nodes import describe_node, groups_of, is_zero_padding, parameter
from mobiledeploy.models.validate import validate_input
from mobiledeploy.stages import FoldedModel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.fx import GraphModule, Node

    from mobiledeploy.network import InputSpec

aten = torch.ops.aten

_CHANNELS = 4
_NETWORK_ORDER = {1: "Y", 3: "RGB"}


def fold_preprocessing(model: FoldedModel) -> FoldedModel:
    """Fold the normalisation of pixels into the first convolution.

    Args:
        model: From `fold`; it stays as it is. With the format "float" it is returned unchanged.

    Returns:
        A model whose module, a flat ATen graph, takes float32 (N, C, H, W) with values in [0, 255].

    Raises:
        UsageError: the format does not fit the network's channels, or the network does not begin
            with a convolution.
    """
    image_spec = model.info.input
    if not image_spec.format.is_pixels:
        return model
    validate_input(image_spec.format.name, image_spec.channels)
    traced = trace(model)
    (image,) = traced.graph.find_nodes(op="placeholder")
    for stem in list(_stems(image)):
        _fold_into(traced, stem, image_spec)
    if len(image_spec.format.order) < _CHANNELS:
        _add_opaque_channels(traced, image, _CHANNELS - len(image_spec.format.order))
    traced.graph.eliminate_dead_code()
    traced.delete_all_unused_submodules()
    traced.recompile()
    dtype = next(traced.parameters()).dtype
    record_shapes(traced, torch.zeros(image_spec.folded_shape, dtype=dtype))
    return FoldedModel(info=model.info, module=traced, folded_layers=model.folded_layers)


def _stems(value: Node) -> Iterator[Node]:
    """Yield the convolutions that read the image, also behind zero padding of height and width.

    Raises:
        UsageError: anything else reads it.
    """
    for reader in value.users:
        if reader.target is aten.pad.default and _pads_sides(reader):
            yield from _stems(reader)
        elif reader.target is aten.conv2d.default:
            yield reader
        else:
            found = "the output" if reader.op == "output" else describe_node(reader)
            raise UsageError(
                f"Pixels cannot be the network's input: {found} reads the image; expected a"
                " convolution, which can take the normalisation.",
                remedy="Export with --input float.",
            )


def _pads_sides(node: Node) -> bool:
    return is_zero_padding(node) and len(cast("list[int]", node.args[1])) <= 4


def _fold_into(traced: GraphModule, stem: Node, image: InputSpec) -> None:
    """Give a convolution weights of its own for pixels."""
    name, former = f"{stem.name}_pixel_weight", cast("Node", stem.args[1])
    weight = pixel_weight(parameter(traced, former).data, groups_of(stem), image)
    traced.register_parameter(name, torch.nn.Parameter(weight, requires_grad=False))
    with traced.graph.inserting_before(stem):
        stem.update_arg(1, traced.graph.get_attr(name))
    if groups_of(stem) != 1:
        stem.update_arg(6, 1)
    if not former.users:
        traced.graph.erase_node(former)
    if not traced.graph.find_nodes(op="get_attr", target=former.target):
        owner, _, attribute = str(former.target).rpartition(".")
        delattr(traced.get_submodule(owner), attribute)


def pixel_weight(weight: torch.Tensor, groups: int, image: InputSpec) -> torch.Tensor:
    """Return the weight for pixels of a convolution's weight for normalised planes.

    Args:
        weight: (out, in / groups, kH, kW).
        groups: Groups of the convolution.
        image: Its input, with mean, std and format.

    Returns:
        (out, 4, kH, kW), for a convolution without groups, in the dtype of `weight`.
    """
    dense = _without_groups(weight.double(), groups)
    mean, std = (
        torch.tensor(values, dtype=torch.float64).view(-1, 1, 1)
        for values in (image.preprocessing.mean, image.preprocessing.std)
    )
    colours = dense / (255 * std)
    alpha = -(colours * mean).sum(1)
    order = image.format.order
    folded = weight.new_zeros((len(dense), _CHANNELS, *dense.shape[2:]))
    network_order = _NETWORK_ORDER[image.channels]
    for place, channel in enumerate(order if "A" in order else order + "A"):
        folded[:, place] = alpha if channel == "A" else colours[:, network_order.index(channel)]
    return folded


def _without_groups(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """Return the weight of the same convolution without groups, (out, in, kH, kW)."""
    outputs, inputs = weight.shape[0] // groups, weight.shape[1]
    dense = weight.new_zeros((len(weight), inputs * groups, *weight.shape[2:]))
    for group in range(groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        dense[rows, group * inputs : (group + 1) * inputs] = weight[rows]
    return dense


def _add_opaque_channels(traced: GraphModule, image: Node, count: int) -> None:
    """Append channels of the value 255 to the image."""
    readers = list(image.users)
    with traced.graph.inserting_after(image):
        padded = traced.graph.call_function(
            aten.pad.default, (image, [0, 0, 0, 0, 0, count], "constant", OPAQUE)
        )
    padded.meta = {"val": image.meta["val"], OPAQUE_CHANNELS: True}
    for reader in readers:
        reader.replace_input_with(image, padded)
