"""Where checkpoints come from, and which dialect they speak."""
