"""Where checkpoints come from, and how they are named."""
