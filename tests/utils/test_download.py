"""Downloads from servers that ask for a user and password, which nobody else gets to see."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mobiledeploy.checkpoints.hub import fetch
from mobiledeploy.checkpoints.published import Published
from mobiledeploy.errors import WeightsError
from mobiledeploy.utils.download import FetchError, download

CONTENT = b"weights"
USER, PASSWORD = "me@work", "s/ec:r@t"
ENCODED = "me%40work:s%2Fec%3Ar%40t"


class Mirror:
    """A server that answers only the right user; what it was sent is kept."""

    def __init__(self):
        self.logins, self.redirect = [], ""
        mirror = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                login = self.headers.get("Authorization")
                mirror.logins.append(login)
                expected = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                if mirror.redirect:
                    self.send_response(302)
                    self.send_header("Location", mirror.redirect)
                    self.end_headers()
                elif login != f"Basic {expected}":
                    self.send_error(401)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(CONTENT)))
                    self.end_headers()
                    self.wfile.write(CONTENT)

            def log_message(self, *_):
                """Stay silent."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.http.server_port}"


@pytest.fixture
def mirrors():
    both = Mirror(), Mirror()
    threads = [threading.Thread(target=each.http.serve_forever, args=(0.01,)) for each in both]
    for thread in threads:
        thread.start()
    yield both
    for mirror, thread in zip(both, threads, strict=True):
        mirror.http.shutdown()
        mirror.http.server_close()
        thread.join()


def test_user_and_password_are_decoded_and_sent(mirrors, tmp_path):
    download(f"http://{ENCODED}@{mirrors[0].host}/net.pth", tmp_path / "net", size_bytes=None)
    assert (tmp_path / "net").read_bytes() == CONTENT


@pytest.mark.parametrize("login", ["me:hidden", "hidden", "me:hid/den", ":hidden", "a:b@hidden"])
def test_a_refusal_shows_neither(mirrors, tmp_path, login):
    with pytest.raises(FetchError) as refused:
        download(f"http://{login}@{mirrors[0].host}/net.pth", tmp_path / "net", size_bytes=None)
    assert "hid" not in str(refused.value)
    assert ("401" in str(refused.value)) is ("/" not in login)


def test_another_server_does_not_get_them(mirrors, tmp_path):
    first, second = mirrors
    first.redirect = f"http://{second.host}/net.pth"
    with pytest.raises(FetchError, match="401"):
        download(f"http://{ENCODED}@{first.host}/net.pth", tmp_path / "net", size_bytes=None)
    assert first.logins[0]
    assert second.logins == [None]


def test_a_mirror_of_weights_may_ask_for_them(mirrors, tmp_path, monkeypatch):
    mirror = mirrors[0]
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(tmp_path))
    file = Published("net.pth", "https://publisher.example/net.pth", "0" * 64, len(CONTENT))
    monkeypatch.setenv("MOBILEDEPLOY_WEIGHTS_URL", f"http://{ENCODED}@{mirror.host}/")
    with pytest.raises(WeightsError, match="arrived with the sha256") as refused:  # it did arrive
        fetch(file)
    monkeypatch.setenv("MOBILEDEPLOY_WEIGHTS_URL", f"http://me:hidden@{mirror.host}")
    with pytest.raises(WeightsError, match=f"http://{mirror.host}/net.pth: .* 401") as denied:
        fetch(file)
    for error in (refused.value, denied.value):
        assert not any(text in f"{error} {error.remedy}" for text in (ENCODED, PASSWORD, "hidden"))
