"""Softmax, sigmoid and L2 normalisation behind the outputs of a `.tflite`, in float.

Input: the number of an output's tensor, which is float. Output: the number of the result's tensor.
All of them are over the last axis, which is that of the classes: LiteRT keeps channels last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.errors import ExportError

if TYPE_CHECKING:
    from mobiledeploy.export.tflite_file import TfliteFile
    from mobiledeploy.network import OutputSpec

_Operator = schema.BuiltinOperator


def add_activation(file: TfliteFile, values: int, output: OutputSpec) -> int:
    """Add the activation of an output, and return the number of its result.

    Raises:
        ExportError: the five largest values are asked for.
    """
    if output.is_exact:
        return values
    if output.activation == "top5":
        raise ExportError(
            "A .tflite cannot return the five largest values: their export is not implemented.",
            remedy="Export with --format onnx, or pass --output probabilities.",
        )
    result = file.add_like(values, output.name)
    if output.activation == "softmax":
        options = schema.SoftmaxOptionsT()
        options.beta = 1.0
        file.add_operator(_Operator.SOFTMAX, [values], result, options)
    elif output.activation == "sigmoid":
        file.add_operator(_Operator.LOGISTIC, [values], result)
    else:
        options = schema.L2NormOptionsT()
        options.fusedActivationFunction = schema.ActivationFunctionType.NONE
        file.add_operator(_Operator.L2_NORMALIZATION, [values], result, options)
    return result
