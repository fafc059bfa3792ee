"""What sound and broken int8 networks reach, for the limits of maps and embeddings.

    MOBILEDEPLOY_SHARED=... python benchmarks/compositions/limits.py

Makes two networks of each trained on CIFAR-10: the pooled features divided by their length, an
embedding; and the classifier at every place of the features, a map of class scores. Compares with
their float outputs, on 100 evaluation images: the sound int8 network, and the float network with
one fault: reversed colours, or one layer, chosen at random, whose weights are doubled, whose bias
is missing, or whose channels are in reverse order. Of these, the lowest and the highest of six
layers are printed.
"""

from mobiledeploy.utils.cpu_isa import limit_to_avx2

limit_to_avx2()  # as the commands do; before torch and numpy are loaded

# ruff: noqa: E402
import copy
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import mobiledeploy
from mobiledeploy.graph.fold_graph import fold_graph
from mobiledeploy.parity.compare import classes_of_map, compare_logits
from mobiledeploy.pipeline.build import build, load_images
from mobiledeploy.quantization.equalize import equalize
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.quantization.ptq import quantize
from mobiledeploy.stages import RECIPES, FloatModel
from mobiledeploy.utils.outputs import activated, joined, joined_arrays
from mobiledeploy.utils.quiet import quietly

SHARED = Path(os.environ["MOBILEDEPLOY_SHARED"])
RESOLUTION = 64
LAYERS = 6
METRICS = {"embedding": "mean_cosine_similarity", "map": "mean_iou"}
FAMILIES = {
    "v1": ("mobilenet_v1_0.5_cifar10", {"width": 0.5}),
    "v3-small": ("mobilenet_v3_small_cifar10", {}),
    "v3-large": ("mobilenet_v3_large_cifar10", {}),
}
Fault = Callable[[torch.Tensor, torch.Tensor], object]


def main() -> None:
    """Print a row per network and task."""
    faults = "colours reversed | weights x 2 | no bias | channels reversed"
    print(f"| network | task | metric | int8, fast | {faults} |")
    print("|---|---|---|---|---|---|---|---|")
    for family, (checkpoint, options) in FAMILIES.items():
        weights = SHARED / "checkpoints" / f"{checkpoint}.safetensors"
        with quietly():
            base = build(
                family, weights=str(weights), resolution=RESOLUTION, num_classes=10, **options
            )
            for row in rows(base):
                print(f"| {family} {row}", flush=True)


def rows(base: FloatModel) -> Iterator[str]:
    """Yield the rows of one trained network."""
    images, calibration = (
        load_images(base, SHARED / "data" / "cifar10" / name) for name in ("eval.npz", "calib.npz")
    )
    some = images.spread(100).images
    for task, module in (("embedding", Embedding(base.module)), ("map", Map(base.module))):
        model = mobiledeploy.from_module(
            module.eval(), input_shape=(3, RESOLUTION, RESOLUTION), task=task
        )
        folded = fold_graph(model)
        int8 = quantize(equalize(folded, calibration), calibration, RECIPES["fast"])
        (output,) = model.info.outputs
        expected = activated(run(folded.module, some), (output,))

        def against_float(found: np.ndarray) -> float:
            metrics = compare_logits(
                expected,  # noqa: B023 - called before the next one is bound
                activated(found, (output,)),  # noqa: B023
                task=output.task,  # noqa: B023
                classes_of_map=classes_of_map(output),  # noqa: B023
            )
            return metrics.get(METRICS[output.task], float("nan"))  # noqa: B023

        sound = joined_arrays(IntegerReference(int8).run({"input": some}))
        figures = [f"{against_float(sound):.4f}"]
        figures.append(f"{against_float(run(folded.module, some[:, ::-1].copy())):.3f}")
        for fault in (double_weights, drop_bias, reverse_channels):
            found = [against_float(run(each, some)) for each in broken(folded.module, fault)]
            figures.append(f"{min(found):.3f} to {max(found):.3f}")
        yield f"| {' | '.join((task, METRICS[task], *figures))} |"


class Embedding(nn.Module):
    """The pooled features of a network, divided by their length."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = network.features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, channels) of length 1."""
        return F.normalize(self.features(x).mean([2, 3]))


class Map(nn.Module):
    """The classifier of a network at every place of its features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.features = network.features
        layers = network.classifier
        layers = list(layers) if isinstance(layers, nn.Sequential) else [layers]
        self.classifier = nn.Sequential(*(_at_every_place(layer) for layer in layers))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (N, classes, H, W)."""
        return self.classifier(self.features(x))


def _at_every_place(layer: nn.Module) -> nn.Module:
    """Return a linear layer as a 1x1 convolution; any other layer itself."""
    if not isinstance(layer, nn.Linear):
        return layer
    convolution = nn.Conv2d(layer.in_features, layer.out_features, 1)
    convolution.weight.data = layer.weight.data[:, :, None, None].clone()
    convolution.bias.data = layer.bias.data.clone()
    return convolution


def run(module: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return the outputs of a module, (N, values)."""
    with torch.no_grad():
        return joined(module(torch.from_numpy(images))).numpy()


def broken(module: nn.Module, fault: Fault) -> Iterator[nn.Module]:
    """Yield copies of a flat graph in which one convolution or linear layer has a fault."""
    layers = [
        node
        for node in module.graph.nodes
        if node.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default)
        and node.args[2] is not None
    ]
    random = np.random.default_rng(0)
    for index in sorted(random.choice(len(layers), LAYERS, replace=False)):
        copied = copy.deepcopy(module)
        weight, bias = (copied.get_parameter(str(layers[index].args[i].target)) for i in (1, 2))
        with torch.no_grad():
            fault(weight, bias)
        yield copied


def double_weights(weight: torch.Tensor, _bias: torch.Tensor) -> None:
    """Double the weights."""
    weight.mul_(2)


def drop_bias(_weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Set the bias to zero."""
    bias.zero_()


def reverse_channels(weight: torch.Tensor, bias: torch.Tensor) -> None:
    """Reverse the order of the output channels."""
    weight.copy_(weight.flip(0).clone())
    bias.copy_(bias.flip(0).clone())


if __name__ == "__main__":
    main()
