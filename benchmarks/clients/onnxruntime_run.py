"""ONNX Runtime: MODEL INPUTS.npy OUT.npy LEVEL [exact]."""

import sys

import numpy as np
import onnxruntime

model, inputs, out, level, *exact = sys.argv[1:]
options = onnxruntime.SessionOptions()
options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
options.intra_op_num_threads = 1
options.log_severity_level = 3
if exact:  # x86 without VNNI
    options.add_session_config_entry("session.x64quantprecision", "1")
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
np.save(out, session.run(["logits"], {"input": np.load(inputs)})[0])
