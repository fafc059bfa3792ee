"""tract: MODEL INPUTS.npy OUT.npy."""

import sys

import numpy as np
import tract

model, inputs, out = sys.argv[1:]
images = np.load(inputs)
network = tract.onnx().load(model)
network.set_input_fact(0, f"1,{','.join(map(str, images.shape[1:]))},f32")
runnable = network.into_model().into_runnable()
logits = [np.array(runnable.run([image[None]])[0].to_numpy()) for image in images]
np.save(out, np.concatenate(logits))
