"""What the native runner is built from."""

import hashlib
import io
import lzma
import tarfile

import pytest

from mobiledeploy.devices.native import sources
from mobiledeploy.devices.native.sources import (
    EXECUTORCH,
    Headers,
    fetch_headers,
    fetch_wheel,
    unpack_headers,
)
from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.download import FetchError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runner" / "downloads"


def package(files):
    """Return a Debian package: a Unix archive with a compressed tar archive in it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    data = b"!<arch>\n"
    for name, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", b"odd"),
        ("data.tar.xz", lzma.compress(packed.getvalue())),
    ):
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    return data


CONTENT = package({"./usr/include/net/api.h": b"int x;", "./usr/share/doc/copyright": b"text"})
HEADERS = Headers(
    path="n/net/libnet-dev_1_all.deb",
    size_bytes=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    folder="./usr/include/",
)


def test_headers_are_downloaded_once_checked_and_unpacked(cache, monkeypatch, tmp_path):
    asked = []

    def download(url, to, *, size_bytes):
        asked.append(url)
        if len(asked) == 1:
            raise FetchError(f"{url}: the server answered 404")
        assert size_bytes == len(CONTENT)
        to.write_bytes(CONTENT)

    monkeypatch.setattr(sources, "download", download)
    found = fetch_headers(HEADERS)
    assert fetch_headers(HEADERS) == found == cache / "libnet-dev_1_all.deb"
    assert [url.rpartition("/pool/main/")[2] for url in asked] == [HEADERS.path] * 2
    unpack_headers(found, HEADERS, tmp_path / "include")
    names = [p.relative_to(tmp_path) for p in (tmp_path / "include").rglob("*") if p.is_file()]
    assert [str(name) for name in names] == ["include/net/api.h"]


def test_files_with_another_sha256_are_refused(cache, monkeypatch):
    monkeypatch.setattr(sources, "download", lambda _, to, **__: to.write_bytes(b"other"))
    with pytest.raises(RuntimeFailedError, match=r"\(1\) it arrived with the sha256 .*; \(2\)"):
        fetch_headers(HEADERS)
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_replaced(cache, monkeypatch):
    cache.mkdir(parents=True)
    (cache / "libnet-dev_1_all.deb").write_bytes(b"damaged")
    monkeypatch.setattr(sources, "download", lambda _, to, **__: to.write_bytes(CONTENT))
    assert fetch_headers(HEADERS).read_bytes() == CONTENT


def test_wheels_that_pip_cannot_download_are_errors(cache, monkeypatch):
    def fail(requirement, _, *options):
        assert "manylinux_2_28_aarch64" in options
        raise FetchError(f"{requirement}: no network")

    monkeypatch.setattr(sources, "pip_download", fail)
    with pytest.raises(RuntimeFailedError, match=r"executorch==.* no network") as caught:
        fetch_wheel(EXECUTORCH, "aarch64")
    assert "--bundle" in caught.value.remedy
    assert str(cache / "executorch-1.5.1-aarch64.whl") in caught.value.remedy
