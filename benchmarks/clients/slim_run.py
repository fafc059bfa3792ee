"""onnxslim, then ONNX Runtime: MODEL INPUTS.npy OUT.npy."""

import sys

import numpy as np
import onnxruntime
import onnxslim

model, inputs, out = sys.argv[1:]
slim = onnxslim.slim(model).SerializeToString()
session = onnxruntime.InferenceSession(slim, providers=["CPUExecutionProvider"])
np.save(out, session.run(["logits"], {"input": np.load(inputs)})[0])
