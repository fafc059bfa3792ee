"""The network as ONNX: a QDQ graph that ONNX Runtime fuses into integer operators throughout.

In: a `QuantizedModel` or a `FoldedModel`. Out: one file, opset 20, no sidecar.

Invariant: same program, same bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import onnx
import onnx_ir as ir
import torch
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    RemoveUnusedNodesPass,
)

from mobiledeploy.errors import ExportError
from mobiledeploy.export.onnx_passes.float_layers import KeepFloatLayers
from mobiledeploy.export.onnx_passes.fold_pads import FoldPads
from mobiledeploy.export.onnx_passes.global_average_pool import UseGlobalAveragePool
from mobiledeploy.export.onnx_passes.int32_biases import Int32Biases
from mobiledeploy.export.onnx_passes.integer_hardswish import IntegerHardSwish
from mobiledeploy.export.onnx_passes.pad_channels import PadDepthwiseChannels, PadStemChannels
from mobiledeploy.export.onnx_passes.quantized_clip import QuantizedClip
from mobiledeploy.export.onnx_passes.quantized_flatten import QuantizedFlatten
from mobiledeploy.export.onnx_passes.symbolic_batch import SymbolicBatch
from mobiledeploy.export.onnx_passes.uint8_activations import Uint8Activations
from mobiledeploy.export.onnx_passes.unshare_zero_points import UnshareZeroPoints
from mobiledeploy.network import INPUT_NAME, OUTPUT_NAME
from mobiledeploy.utils.quiet import quietly

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.export import ExportedProgram

    from mobiledeploy.artifact.artifact import Precision

OPSET = 20
"""The newest opset that the oldest supported ONNX Runtime (1.27) and phones' builds all run."""

_TIDY = (ClearMetadataAndDocStringPass(), UseGlobalAveragePool())
_TO_INTEGERS = (
    FoldPads(),
    Uint8Activations(),
    QuantizedClip(),
    KeepFloatLayers(),
    Int32Biases(),
    IntegerHardSwish(),
    PadStemChannels(),
    PadDepthwiseChannels(),
    UnshareZeroPoints(),
)
_FREE_THE_BATCH = (QuantizedFlatten(), SymbolicBatch(), RemoveUnusedNodesPass())


def encode(program: ExportedProgram, precision: Precision, metadata: Mapping[str, str]) -> bytes:
    """Return the program as a serialized ONNX model.

    Args:
        program: Batch of one; quantized (PT2E-converted) or float.
        precision: Decides whether the integer passes run.
        metadata: For the model's `metadata_props`.

    Raises:
        ExportError: the exporter refused the program, or a pass's promise did not hold.
    """
    try:
        with quietly():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ExportError(f"torch.onnx could not export the network: {error}") from error
    assert exported is not None
    model = exported.model
    passes = (*_TIDY, *(_TO_INTEGERS if precision == "int8" else ()), *_FREE_THE_BATCH)
    try:
        ir.passes.Sequential(*passes)(model)
    except ir.passes.PassError as error:
        raise ExportError(f"An ONNX pass failed: {error.__cause__ or error}") from error
    model.producer_name = "mobiledeploy"
    model.producer_version = None
    model.metadata_props.update(metadata)
    proto = ir.to_proto(model)
    try:
        with quietly():
            onnx.checker.check_model(proto, full_check=True)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"The ONNX graph is not valid: {error}") from error
    return cast("bytes", proto.SerializeToString(deterministic=True))
