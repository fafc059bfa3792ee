"""Post-training quantization to int8, and the integer reference that defines the result."""
