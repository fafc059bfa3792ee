"""Export to ONNX: a QDQ graph that ONNX Runtime fuses into integer operators.

In: a `QuantizedModel` or a `FoldedModel`. Out: the bytes of one file, without external data, with
the lowest opset that its operators allow. Invariant: the same network gives the same bytes.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, cast

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    RemoveUnusedNodesPass,
)

from mobiledeploy.artifact.metadata import for_onnx
from mobiledeploy.errors import ExportError
from mobiledeploy.export.core_operators import in_core_operators, without_idle_decompositions
from mobiledeploy.export.onnx_passes.activate_outputs import ActivateOutputs
from mobiledeploy.export.onnx_passes.float_layers import KeepFloatLayers
from mobiledeploy.export.onnx_passes.fold_pads import FoldPads
from mobiledeploy.export.onnx_passes.global_average_pool import UseGlobalAveragePool
from mobiledeploy.export.onnx_passes.int32_biases import Int32Biases
from mobiledeploy.export.onnx_passes.integer_hardswish import IntegerHardSwish
from mobiledeploy.export.onnx_passes.lowest_opset import LowestOpset
from mobiledeploy.export.onnx_passes.name_layers import NameConstants, NameLayers
from mobiledeploy.export.onnx_passes.pad_channels import PadDepthwiseChannels
from mobiledeploy.export.onnx_passes.pixel_input import PixelInput
from mobiledeploy.export.onnx_passes.quantized_clip import QuantizedClip
from mobiledeploy.export.onnx_passes.quantized_flatten import QuantizedFlatten
from mobiledeploy.export.onnx_passes.quantized_moves import AnyBatchShapes, QuantizedMoves
from mobiledeploy.export.onnx_passes.symbolic_batch import SymbolicBatch
from mobiledeploy.export.onnx_passes.uint8_activations import Uint8Activations
from mobiledeploy.export.onnx_passes.unroll_stem import UnrollStem
from mobiledeploy.export.program import precision_of, program_of
from mobiledeploy.network import INPUT_NAME
from mobiledeploy.stages import FoldedModel, QuantizedModel
from mobiledeploy.utils.progress import step
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_OPSET = 18  # the lowest one that torch.onnx writes
_CLEAN_UP = (
    NameLayers(),
    ClearMetadataAndDocStringPass(),
    UseGlobalAveragePool(),
    AnyBatchShapes(),
)
_INTEGER = (
    FoldPads(),
    Uint8Activations(),
    QuantizedClip(),
    QuantizedMoves(),
    KeepFloatLayers(),
    Int32Biases(),
    IntegerHardSwish(),
    UnrollStem(),
    PadDepthwiseChannels(),
)
_FINISH = (
    QuantizedFlatten(),
    RemoveUnusedNodesPass(),
    NameConstants(),
    SymbolicBatch(),
    LowestOpset(),
)


def encode_model(model: QuantizedModel | FoldedModel) -> bytes:
    """Return the network as a serialized ONNX model.

    Raises:
        ExportError: the exporter refused the network, or a pass failed its check.
    """
    with step("Translating the graph to ONNX"):
        exported = _translate(program_of(model), [each.name for each in model.info.outputs])
    integer = _INTEGER if precision_of(model) == "int8" else ()
    activate = ActivateOutputs(model.info.outputs)
    passes = (*_CLEAN_UP, PixelInput(model.info.input), *integer, activate, *_FINISH)
    try:
        ir.passes.Sequential(*passes)(exported)
    except ir.passes.PassError as error:
        raise ExportError(f"An ONNX pass failed: {error.__cause__ or error}") from error
    _describe(exported, model)
    proto = ir.to_proto(exported)
    try:
        with quietly():
            onnx.checker.check_model(proto, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"The ONNX graph is not valid: {error}") from error
    return cast("bytes", proto.SerializeToString(deterministic=True))


def _describe(exported: ir.Model, model: QuantizedModel | FoldedModel) -> None:
    """Write who made the file, what it is, and what it needs."""
    exported.graph.name = model.info.name
    exported.producer_name = "mobiledeploy"
    exported.producer_version = version("mobiledeploy")
    exported.doc_string = (
        f"{model.info.name}, {precision_of(model)}. Input:"
        f" {model.info.input.format.element}, {model.info.input.format.layout}. Preprocessing:"
        f" mobiledeploy.metadata in metadata_props."
    )
    properties = for_onnx(model, exported.opset_imports, exported.ir_version)
    exported.metadata_props.update(properties)


def _translate(program: ExportedProgram, output_names: list[str]) -> ir.Model:
    """Return what torch.onnx makes of a program."""
    try:
        with quietly(), without_idle_decompositions():
            exported = torch.onnx.export(
                in_core_operators(program),
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=output_names,
                opset_version=_OPSET,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ExportError(f"torch.onnx could not export the network: {error}") from error
    assert exported is not None
    return exported.model
