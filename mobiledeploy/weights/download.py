"""Files from the network.

Input: a URL. Output: the file, complete. Invariant: a failure leaves nothing that could be mistaken
for the file; its reason is one sentence.
"""

from __future__ import annotations

import http.client
import math
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from mobiledeploy import progress

TIMEOUT_S = 30  # without a byte
_CHUNK_BYTES = 1 << 18


class FetchError(Exception):
    """One way to a file did not lead there; the text says why, and others may be tried."""


def download(url: str, to: Path, *, size_bytes: int) -> None:
    """Write what a URL holds to a file; proxies are taken from the environment.

    Args:
        url: http, https or file.
        to: Written as it arrives.
        size_bytes: The expected size, for progress and to tell a connection that was cut.

    Raises:
        FetchError: the server cannot be reached or refuses, or the connection was cut.
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
    """Copy a response to a file; return how many bytes came.

    One byte more than expected is enough to know that it is another file; no more is read.
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
    """Read from the network; errors of writing the file are not the network's.

    Raises:
        FetchError: the connection broke.
    """
    try:
        return response.read(at_most)
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(f"{url}: {error or type(error).__name__}") from error
