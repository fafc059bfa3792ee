"""Tell torch and matplotlib where to keep their files."""

from __future__ import annotations

import os
import tempfile

from mobiledeploy.utils.files import cache_folder


def place_foreign_files() -> None:
    """Keep TMPDIR and the home folder free of other libraries' files. Call it before they load.

    matplotlib's list of fonts goes to the cache folder. Loading torchao would create a folder for
    torch.compile in TMPDIR, and fail if there is no room; one that exists is named instead.
    Variables that are already set in the environment are kept.
    """
    try:
        existing = tempfile.gettempdir()
    except FileNotFoundError:  # no folder can be written
        existing = os.sep
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", existing)
    os.environ.setdefault("MPLCONFIGDIR", str(cache_folder() / "matplotlib"))
