"""BatchNorm folding: merge every BatchNorm into the convolution before it.

Input: a `FloatModel`. Output: a `FoldedModel`, a copy without BatchNorm and Dropout.
Maths: BN(W x + b) = W' x + b' with g = gamma / sqrt(var + eps), W' = g W per output channel, and
b' = beta + g (b - mean) (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference" (2018), section 3.2).
Invariant: the function stays the same, to 1e-9 in float64, and no BatchNorm remains.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from mobiledeploy.errors import UsageError
from mobiledeploy.graph.fold_graph import fold_graph
from mobiledeploy.network import CUSTOM
from mobiledeploy.stages import FloatModel, FoldedModel
from mobiledeploy.utils.arguments import FROM_MODULE, require_instance

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


@dataclass(frozen=True, slots=True)
class _Pair:
    """Qualified names of a BN and of the layer that it is folded into.

    The layer is a convolution or a linear layer whose only user is the BN, or else a linear layer
    that is the BN's only user.
    """

    conv: str
    norm: str
    norm_is_first: bool = False


def fold(model: FloatModel) -> FoldedModel:
    """Fold every BN of a model into its convolution, and remove Dropout.

    The result is computed in float64 and rounded once, to the dtype of the parameters. The
    remaining layers keep their names. A network that is none of the families is folded in its
    traced graph instead, see `fold_graph`.

    Args:
        model: The model, in eval mode; it stays as it is.

    Raises:
        UsageError: a BN does not directly follow a convolution of which it is the only user, has no
            running statistics, or the module cannot be traced.
    """
    require_instance(model, FloatModel, "model", FROM_MODULE)
    if model.info.architecture == CUSTOM:
        return fold_graph(model)
    module = copy.deepcopy(model.module).eval()
    pairs = _conv_norm_pairs(module)
    for pair in pairs:
        conv, norm = module.get_submodule(pair.conv), module.get_submodule(pair.norm)
        assert isinstance(conv, Conv)
        assert isinstance(norm, _BatchNorm)
        if pair.norm_is_first:
            assert isinstance(conv, nn.Linear)
            _fold_ahead(norm, conv)
        else:
            _fold_into(conv, norm)
        _remove(module, pair.norm)
    for name, layer in list(module.named_modules()):
        if isinstance(layer, _DropoutNd):
            _remove(module, name)
    return FoldedModel(
        info=model.info,
        module=module,
        folded_layers=tuple(pair.conv for pair in pairs),
    )


class _LayerTracer(fx.Tracer):
    """Traces down to convolutions and norms as leaves, including subclasses of torch's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether `m` is one node of the graph."""
        return isinstance(m, Conv | _BatchNorm) or super().is_leaf_module(m, module_qualified_name)


def _conv_norm_pairs(module: nn.Module) -> list[_Pair]:
    """Pair every BN with the convolution before it, in the order in which they run.

    Uses the traced graph, because the order in a Sequential does not show whether the convolution
    has other users, or whether a layer runs twice.
    """
    try:
        graph = _LayerTracer().trace(module)
    except Exception as error:  # tracing runs the module's own code, which may raise anything
        raise UsageError(
            f"The module cannot be traced to find its convolutions and norms: {error}",
            remedy="Use a module without control flow that depends on its input.",
        ) from error
    calls = [node for node in graph.nodes if node.op == "call_module"]
    order = [str(node.target) for node in calls]
    pairs = []
    for node in calls:
        norm = str(node.target)
        if not isinstance(module.get_submodule(norm), _BatchNorm):
            continue
        if reader := _linear_reader(module, node, order):
            pairs.append(_Pair(reader, norm, norm_is_first=True))
            continue
        source = node.args[0]
        conv = str(source.target)
        reason = _obstacle(module, source, conv, norm, order)
        if reason:
            raise UsageError(f"BatchNorm {norm!r} cannot be folded: {reason}.")
        pairs.append(_Pair(conv, norm))
    _refuse_unpaired_norms(module, graph, order)
    return pairs


def _linear_reader(module: nn.Module, node: fx.Node, order: list[str]) -> str:
    """Return the linear layer that alone reads a BN which follows no convolution; "" for none."""
    source, norm = node.args[0], module.get_submodule(str(node.target))
    assert isinstance(source, fx.Node)
    if getattr(norm, "running_var", None) is None:
        return ""
    if source.op == "call_module" and isinstance(module.get_submodule(str(source.target)), Conv):
        return ""
    while len(node.users) == 1:
        (node,) = node.users
        layer = module.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, nn.Linear) and order.count(str(node.target)) == 1:
            return str(node.target)
        if not isinstance(layer, _DropoutNd):
            break
    return ""


def _refuse_unpaired_norms(module: nn.Module, graph: fx.Graph, order: list[str]) -> None:
    """Raise for norms that are not a layer of the graph."""
    for name, layer in module.named_modules():
        if isinstance(layer, _BatchNorm) and name not in order:
            raise UsageError(f"BatchNorm {name!r} cannot be folded: it never runs.")
    for node in graph.nodes:
        if node.target in (torch.nn.functional.batch_norm, torch.batch_norm):
            raise UsageError(
                f"BatchNorm {node.name!r} cannot be folded: it is a function call, not a layer.",
                remedy="Use nn.BatchNorm2d.",
            )


def _obstacle(module: nn.Module, source: fx.Node, conv: str, norm: str, order: list[str]) -> str:
    """Return why `norm`, which reads `source`, cannot be folded; "" if it can."""
    if source.op != "call_module" or not isinstance(module.get_submodule(conv), Conv):
        return f"it reads {source.name!r}, which is neither a convolution nor a linear layer"
    if len(source.users) > 1:
        return f"{conv!r} has other users"
    if order.count(conv) > 1 or order.count(norm) > 1:
        return f"{conv!r} or the norm itself runs more than once"
    if not any(name == "running_var" for name, _ in module.get_submodule(norm).named_buffers()):
        return "it has no running statistics"
    return ""


@torch.no_grad()
def _fold_ahead(norm: _BatchNorm, linear: nn.Linear) -> None:
    """Make `linear` compute linear(norm(x)), in place: W (g x + c) + b = (W g) x + (W c + b)."""
    gain, offset = _gain_and_offset(norm)
    weight = linear.weight.double()
    bias = torch.zeros_like(weight[:, 0]) if linear.bias is None else linear.bias.double()
    dtype = linear.weight.dtype
    linear.bias = nn.Parameter((bias + weight @ offset).to(dtype))
    linear.weight = nn.Parameter((weight * gain).to(dtype))


def _gain_and_offset(norm: _BatchNorm) -> tuple[torch.Tensor, torch.Tensor]:
    """Return g and c of what a BN computes in inference, g x + c, in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.double()
    gain = gamma / torch.sqrt(variance + norm.eps)
    return gain, beta - gain * mean


@torch.no_grad()
def _fold_into(conv: Conv, norm: _BatchNorm) -> None:
    """Make `conv` compute norm(conv(x)), in place, for any groups and with or without bias."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    gamma = torch.ones_like(mean) if norm.weight is None else norm.weight.double()
    beta = torch.zeros_like(mean) if norm.bias is None else norm.bias.double()
    bias = torch.zeros_like(mean) if conv.bias is None else conv.bias.double()
    gain = gamma / torch.sqrt(variance + norm.eps)
    weight = conv.weight.double() * gain.reshape(-1, *[1] * (conv.weight.dim() - 1))
    conv.weight = nn.Parameter(weight.to(conv.weight.dtype))
    conv.bias = nn.Parameter((beta + gain * (bias - mean)).to(conv.weight.dtype))


def _remove(module: nn.Module, name: str) -> None:
    """Remove a layer: delete it from a Sequential, replace it by an Identity elsewhere."""
    parent_name, _, child = name.rpartition(".")
    parent = module.get_submodule(parent_name)
    if isinstance(parent, nn.Sequential) and type(parent).forward is nn.Sequential.forward:
        delattr(parent, child)
    else:
        setattr(parent, child, nn.Identity())
