"""From what the exporter writes to what ONNX Runtime runs in integers: one pass per file.

Each pass keeps what the graph computes; `ensures` states what holds after it.
"""
