"""Entry point of ``mobiledeploy`` and ``python -m mobiledeploy``."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; Ctrl-C also works while it is being imported."""
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
