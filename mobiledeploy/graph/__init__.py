"""The float network as a flat ATen graph: BatchNorm folding, fused operators, channel groups."""
