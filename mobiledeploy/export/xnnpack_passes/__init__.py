"""Passes over the XNNPACK graph that ExecuTorch serializes."""
