"""The program of a network of pixels, with the pixels as its input.

    image (1, C, H, W), float  ->  quantize (scale 1, zero-point -128)  ->  int8 codes
    pixels (1, H, W, C), uint8 ->  dequantize (scale 1), permute, quantize  ->  the same codes
    pixels (1, C, H, W), uint8 ->  dequantize (scale 1), quantize           ->  the same codes

All compute pixel - 128. The exporter of `.pte` needs the forms with pixels, because ExecuTorch
takes the type and shape of the input from the program.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from mobiledeploy.network import InputSpec

_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default


def with_pixel_input(program: ExportedProgram, image: InputSpec) -> ExportedProgram:
    """Return the program with pixels as its input; with the format "float" the program itself.

    A stem in float reads the dequantized pixels themselves.
    """
    if not image.format.is_pixels:
        return program
    exported = program.module(check_guards=False)
    # a new graph module, without the exported program's hook that fixes the shape of its input
    module = torch.fx.GraphModule(exported, exported.graph)
    graph = module.graph
    (source,) = graph.find_nodes(op="placeholder")
    readers = list(source.users)
    with graph.inserting_after(source):
        values = graph.call_function(_DEQUANTIZE, (source, 1.0, 0, 0, 255, torch.uint8))
    planes = values
    if image.format.layout == "NHWC":
        with graph.inserting_after(values):
            axes = list(image.format.planes_axes)
            planes = graph.call_function(torch.ops.aten.permute_copy.default, (values, axes))
    for reader in readers:
        reader.replace_input_with(source, planes)
    module.recompile()
    with quietly():
        pixels = torch.zeros((1, *image.artifact_shape), dtype=torch.uint8)
        return torch.export.export(module, (pixels,))
