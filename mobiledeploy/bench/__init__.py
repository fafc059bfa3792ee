"""Latency, measured so that it can be believed."""
