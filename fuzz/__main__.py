"""`python -m fuzz`: try hostile inputs, print a table, save what is wrong."""

from __future__ import annotations

import argparse
import os
import sys

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a fork keeps no threads

from fuzz.readers import READERS
from fuzz.session import replay, run, table

_DESCRIPTION = "Give hostile inputs to the readers. Exit 1 if one crashes, hangs or has a bug."


def main() -> int:
    """Parse the options, run, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=_DESCRIPTION)
    parser.add_argument("--reader", action="append", choices=READERS, help="by default all")
    parser.add_argument("--minutes", type=float, help="how long, shared by the readers")
    parser.add_argument("--inputs", type=int, default=100, help="per reader, without --minutes")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations")
    parser.add_argument("--replay", action="store_true", help="read the saved inputs instead")
    options = parser.parse_args()
    tallies = (
        replay(options.reader)
        if options.replay
        else run(options.reader, seed=options.seed, inputs=options.inputs, minutes=options.minutes)
    )
    sys.stdout.write(table(tallies))
    return any(tally.findings for tally in tallies)


if __name__ == "__main__":
    sys.exit(main())
