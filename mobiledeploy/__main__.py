"""Entry point of ``mobiledeploy`` and ``python -m mobiledeploy``."""

import gc
import sys
from typing import NoReturn

# Objects between two runs of the garbage collector. With Python's own 700 it takes a tenth of the
# processor time of an export: it walks the millions of objects of PyTorch's graphs.
_OBJECTS = 50_000


def main() -> NoReturn:
    """Run the command line; Ctrl-C also works while it is being imported."""
    gc.set_threshold(_OBJECTS)
    try:
        from mobiledeploy.utils.cpu_isa import limit_to_avx2
        from mobiledeploy.utils.foreign_files import place_foreign_files

        limit_to_avx2()
        place_foreign_files()
        from mobiledeploy import cli
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
