"""The evaluator of the onnx package: MODEL INPUTS.npy OUT.npy.

It has no DequantizeLinear of opsets below 19, so onnx's own converter raises the opset first.
"""

import sys

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.version_converter import convert_version

model, inputs, out = sys.argv[1:]
evaluator = ReferenceEvaluator(convert_version(onnx.load(model), 20))
logits = [evaluator.run(None, {"input": image[None]})[0] for image in np.load(inputs)]
np.save(out, np.concatenate(logits))
