"""ExecuTorch: MODEL INPUTS.npy OUT.npy."""

import sys

import numpy as np
import torch
from executorch.runtime import Runtime

model, inputs, out = sys.argv[1:]
forward = Runtime.get().load_program(model).load_method("forward")
images = torch.from_numpy(np.load(inputs))
logits = [forward.execute([image[None].contiguous()])[0].numpy().copy() for image in images]
np.save(out, np.concatenate(logits))
