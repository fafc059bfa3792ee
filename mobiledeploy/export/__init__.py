"""Write an artifact: ONNX or ExecuTorch."""
