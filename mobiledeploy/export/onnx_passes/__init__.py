"""Passes that turn the exporter's graph into one that ONNX Runtime runs in integers.

One pass per file. A pass does not change what the graph computes. Its `ensures` raises if the
result is not what the pass promises.
"""
