"""Export networks as artifacts: ONNX and ExecuTorch `.pte`."""
