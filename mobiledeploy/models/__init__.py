"""The architectures, as row tables."""
