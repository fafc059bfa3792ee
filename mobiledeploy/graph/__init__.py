"""The network as a flat graph of aten operators, and what is done to it in float."""
