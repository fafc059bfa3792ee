"""The integer reference runs only what it defines."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mobiledeploy.errors import ExportError
from mobiledeploy.network import InputSpec, OutputSpec, Preprocessing
from mobiledeploy.quantization.integer_reference import IntegerReference
from mobiledeploy.stages import QuantRecipe


def test_an_operator_that_is_not_defined_is_named():
    class Sine(torch.nn.Module):
        def forward(self, x):
            q = torch.ops.quantized_decomposed
            x = q.quantize_per_tensor.default(x, 0.1, 0, -128, 127, torch.int8)
            x = torch.sin(q.dequantize_per_tensor.default(x, 0.1, 0, -128, 127, torch.int8))
            x = q.quantize_per_tensor.default(x, 0.1, 0, -128, 127, torch.int8)
            return q.dequantize_per_tensor.default(x, 0.1, 0, -128, 127, torch.int8)

    image = InputSpec(channels=3, height=1, width=1, preprocessing=Preprocessing())
    program = torch.export.export(Sine(), (torch.zeros(1, 3, 1, 1),))
    runner = IntegerReference(
        SimpleNamespace(
            program=program,
            output_encodings=(None,),
            recipe=QuantRecipe(),
            info=SimpleNamespace(input=image, outputs=(OutputSpec(size=3),)),
        )
    )
    with pytest.raises(ExportError, match=r"does not define the operator .*sin"):
        runner.run({"input": np.zeros((1, 3, 1, 1), np.float32)})
