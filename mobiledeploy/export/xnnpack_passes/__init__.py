"""Passes over a serialized XNNPACK graph."""
