"""LiteRT with XNNPACK: MODEL INPUTS.npy OUT.npy."""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

model, inputs, out = sys.argv[1:]
interpreter = Interpreter(model, num_threads=1)
interpreter.allocate_tensors()
(image_in,), (logits_out,) = interpreter.get_input_details(), interpreter.get_output_details()
images = np.load(inputs)
if image_in["shape"][-1] == images.shape[1]:  # the file reads NHWC
    images = images.transpose(0, 2, 3, 1)
logits = []
for image in images:
    interpreter.set_tensor(image_in["index"], np.ascontiguousarray(image[None]))
    interpreter.invoke()
    logits.append(interpreter.get_tensor(logits_out["index"]))
np.save(out, np.concatenate(logits))
