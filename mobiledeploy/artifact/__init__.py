"""The files that are written: artifacts, manifests, metadata."""
