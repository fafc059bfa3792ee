"""One runner per runtime: PyTorch, ONNX Runtime, ExecuTorch."""
