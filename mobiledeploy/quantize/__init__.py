"""One int8 network out of a folded float one."""
