"""ONNX Runtime's own format: MODEL INPUTS.npy OUT.npy STYLE (Fixed or Runtime)."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

model, inputs, out, style = sys.argv[1:]
with tempfile.TemporaryDirectory() as folder:
    command = [sys.executable, "-m", "onnxruntime.tools.convert_onnx_models_to_ort", model]
    options = ["--output_dir", folder, "--optimization_style", style]
    subprocess.run([*command, *options], check=True, capture_output=True)
    ending = ".with_runtime_opt.ort" if style == "Runtime" else ".ort"
    converted = Path(folder) / f"{Path(model).stem}{ending}"
    session = onnxruntime.InferenceSession(converted, providers=["CPUExecutionProvider"])
    np.save(out, session.run(["logits"], {"input": np.load(inputs)})[0])
