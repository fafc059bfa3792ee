"""Export, check and measure many variants of a network, and pick one under a budget."""
