"""TVM on the CPU: MODEL INPUTS.npy OUT.npy."""

import sys

import numpy as np
import onnx
import tvm
from tvm import relax
from tvm.relax.frontend.onnx import from_onnx

model, inputs, out = sys.argv[1:]
images = np.load(inputs)
network = from_onnx(onnx.load(model), shape_dict={"input": [1, *images.shape[1:]]})
machine = relax.VirtualMachine(tvm.compile(network, target="llvm"), tvm.cpu())
logits = []
for image in images:
    result = machine["main"](tvm.runtime.tensor(image[None]))
    logits.append((result if hasattr(result, "numpy") else result[0]).numpy())
np.save(out, np.concatenate(logits))
