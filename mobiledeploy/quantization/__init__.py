"""Post-training quantization to int8: equalization, range search, GPTQ, PT2E, integer reference."""
