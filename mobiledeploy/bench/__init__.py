"""Measure latency, memory and instructions."""
