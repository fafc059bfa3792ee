"""The int8 network, encoded as ONNX and as ExecuTorch `.pte`."""
