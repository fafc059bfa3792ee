"""OpenVINO on the CPU: MODEL INPUTS.npy OUT.npy."""

import sys

import numpy as np
import openvino

model, inputs, out = sys.argv[1:]
compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": "1"})
logits = [np.array(compiled({"input": image[None]})["logits"]) for image in np.load(inputs)]
np.save(out, np.concatenate(logits))
