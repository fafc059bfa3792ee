"""What the native runner is built from."""

import hashlib

import pytest
from debian_package import package

from mobiledeploy.devices.native import sources
from mobiledeploy.devices.native.sources import (
    EXECUTORCH,
    DebianPackage,
    fetch_package,
    fetch_wheel,
    unpack_package,
)
from mobiledeploy.errors import RuntimeFailedError
from mobiledeploy.utils.download import FetchError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "runner" / "downloads"


CONTENT = package(
    {
        "./usr/include/net/api.h": b"int x;",
        "./usr/include/net/old.h": None,  # a link to api.h
        "./usr/share/doc/copyright": b"text",
    }
)
HEADERS = DebianPackage(
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
    found = fetch_package(HEADERS)
    assert fetch_package(HEADERS) == found == cache / "libnet-dev_1_all.deb"
    assert [url.rpartition("/pool/main/")[2] for url in asked] == [HEADERS.path] * 2
    unpack_package(found, HEADERS, tmp_path / "include")
    found = {p.name: p.read_bytes() for p in (tmp_path / "include" / "net").iterdir()}
    assert found == {"api.h": b"int x;", "old.h": b"int x;"}
    assert [p.name for p in (tmp_path / "include").iterdir()] == ["net"]


def test_files_with_another_sha256_are_refused(cache, monkeypatch):
    monkeypatch.setattr(sources, "download", lambda _, to, **__: to.write_bytes(b"other"))
    with pytest.raises(RuntimeFailedError, match=r"\(1\) it arrived with the sha256 .*; \(2\)"):
        fetch_package(HEADERS)
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_replaced(cache, monkeypatch):
    cache.mkdir(parents=True)
    (cache / "libnet-dev_1_all.deb").write_bytes(b"damaged")
    monkeypatch.setattr(sources, "download", lambda _, to, **__: to.write_bytes(CONTENT))
    assert fetch_package(HEADERS).read_bytes() == CONTENT


def test_wheels_that_pip_cannot_download_are_errors(cache, monkeypatch):
    def fail(requirement, _, *options):
        assert "manylinux_2_28_aarch64" in options
        raise FetchError(f"{requirement}: no network")

    monkeypatch.setattr(sources, "pip_download", fail)
    with pytest.raises(RuntimeFailedError, match=r"executorch==.* no network") as caught:
        fetch_wheel(EXECUTORCH, "aarch64")
    assert "--bundle" in caught.value.remedy
    assert str(cache / "executorch-1.5.1-aarch64.whl") in caught.value.remedy
