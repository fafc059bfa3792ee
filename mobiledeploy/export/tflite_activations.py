"""What a `.tflite` computes of its outputs, in float.

softmax, sigmoid, normalize    one operator
top5                           TOPK_V2 of the values, and their softmax

Input: the number of an output's tensor, which is float. Output: the numbers of the results'
tensors. All of them are over the last axis, which is that of the classes: LiteRT keeps channels
last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from mobiledeploy.utils.top5 import TOP

if TYPE_CHECKING:
    from mobiledeploy.export.tflite_file import TfliteFile
    from mobiledeploy.network import OutputSpec

_Operator = schema.BuiltinOperator


def add_activation(file: TfliteFile, values: int, output: OutputSpec) -> list[int]:
    """Add the activation of an output, and return the numbers of its results."""
    if output.is_exact:
        return [values]
    if output.activation == "top5":
        return _add_largest(file, values, output)
    if output.activation == "softmax":
        return [_add_softmax(file, values, output.name)]
    result = file.add_like(values, output.name)
    if output.activation == "sigmoid":
        file.add_operator(_Operator.LOGISTIC, [values], result)
    else:
        options = schema.L2NormOptionsT()
        options.fusedActivationFunction = schema.ActivationFunctionType.NONE
        file.add_operator(_Operator.L2_NORMALIZATION, [values], result, options)
    return [result]


def _add_softmax(file: TfliteFile, values: int, name: str) -> int:
    result = file.add_like(values, name)
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    file.add_operator(_Operator.SOFTMAX, [values], result, options)
    return result


def _add_largest(file: TfliteFile, values: int, output: OutputSpec) -> list[int]:
    """Return the classes of the largest values, and their probabilities."""
    count = min(TOP, output.size)
    how_many = file.add_constant(f"{output.name}.count", np.array([count], np.int32))
    largest = file.add_like(values, f"{output.name}.values", (1, count))
    classes_name, probabilities_name = output.tensors
    classes = file.add_tensor(classes_name, (1, count), np.int32)
    options = schema.TopKV2OptionsT()
    file.add_operator(_Operator.TOPK_V2, [values, how_many], [largest, classes], options)
    all_of_them = _add_softmax(file, values, f"{output.name}.softmax")
    probabilities = file.add_like(values, probabilities_name, (1, count))
    gather = schema.GatherOptionsT()
    gather.axis = gather.batchDims = 1
    file.add_operator(_Operator.GATHER, [all_of_them, classes], probabilities, gather, version=5)
    return [classes, probabilities]
