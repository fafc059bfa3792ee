"""One `Runner` for each thing that can run a network."""
