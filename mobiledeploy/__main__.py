"""``mobiledeploy``, and ``python -m mobiledeploy``."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; a Ctrl-C while it is still being loaded ends it like any other."""
    try:
        from mobiledeploy.kernels import compute_alike

        compute_alike()
        from mobiledeploy import cli
    except KeyboardInterrupt:
        sys.stderr.write("Stopped.\n")
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
