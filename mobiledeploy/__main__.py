"""``python -m mobiledeploy``."""

from mobiledeploy.cli import main

if __name__ == "__main__":
    main()
