"""A fuzzer of every reader: damaged and hostile files must be read or refused, never crash.

`python -m fuzz --help` shows how to run it. Each input is a seed of `seeds/` with some mutations.
It is read in a process of its own, with limits of time and memory. Reading it may succeed or raise
a `MobileDeployError`. Anything else is a bug, and its input is saved.
"""
