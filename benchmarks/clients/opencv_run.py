"""OpenCV's dnn: MODEL INPUTS.npy OUT.npy ENGINE."""

import sys

import cv2
import numpy as np

model, inputs, out, engine = sys.argv[1:]
network = cv2.dnn.readNetFromONNX(model, getattr(cv2.dnn, engine))
logits = []
for image in np.load(inputs):
    network.setInput(image[None], "input")
    logits.append(network.forward().copy())
np.save(out, np.concatenate(logits))
