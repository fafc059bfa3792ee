"""Runtimes on this machine, one `Runner` each: PyTorch, ONNX Runtime, ExecuTorch."""
