"""Is the built network the one that was trained? Ask its BatchNorm statistics."""
