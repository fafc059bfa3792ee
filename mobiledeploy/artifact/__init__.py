"""Artifacts, their manifests and their metadata."""
