"""Tests without network: an empty cache, a local server, pip without an index."""

import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from implementations import distinct
from torch import nn

from mobiledeploy.models.spec import ModelSpec

UNREACHABLE = "http://127.0.0.1:9"  # the discard port: nothing listens there


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Keep every test on this machine; return the cache folder, which is empty."""
    folder = tmp_path_factory.mktemp("offline")
    monkeypatch.setenv("MOBILEDEPLOY_CACHE", str(folder / "cache"))
    monkeypatch.setenv("MOBILEDEPLOY_WEIGHTS_URL", UNREACHABLE)
    monkeypatch.setenv("no_proxy", "*")
    (folder / "wheels").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder / "wheels"))
    connect = socket.socket.connect

    def only_here(self: socket.socket, address: tuple[str, int]) -> None:
        assert address[0] in ("127.0.0.1", "localhost", "::1"), f"a test called {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Use one thread: the networks are too small for more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cache(offline: Path) -> Path:
    return offline / "cache" / "weights"


@pytest.fixture
def wheels(offline: Path) -> Path:
    """Where pip finds packages."""
    return offline / "wheels"


@dataclass
class Server:
    """Serves `files` by name; `behaviour` selects a fault."""

    files: dict[str, bytes] = field(default_factory=dict)
    behaviour: str = "well"
    requests: list[str] = field(default_factory=list)
    url: str = ""
    released: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """A local web server as the source of downloads."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.removeprefix("/")
            state.requests.append(name)
            if name not in state.files or state.behaviour == "404":
                self.send_error(404)
                return
            content = state.files[name]
            self.send_response(200)
            if state.behaviour == "silent":
                state.released.wait()
            if state.behaviour != "without length":
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if state.behaviour in ("cut", "without length"):
                content = content[: len(content) // 2]
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        state.url = f"http://127.0.0.1:{http.server_port}"
        monkeypatch.setenv("MOBILEDEPLOY_WEIGHTS_URL", state.url)
        yield state
        state.released.set()
        http.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def small() -> tuple[ModelSpec, nn.Module]:
    """A small V2 in which all tensors differ."""
    spec = ModelSpec(family="v2", width=0.25, resolution=32, num_classes=7)
    return spec, distinct(spec)


@pytest.fixture
def saved(tmp_path: Path, small) -> Callable[..., Path]:
    """Save an object (by default the small network's state dict) as a checkpoint."""

    def save(content: object = None, name: str = "net.pth", **options: object) -> Path:
        path = tmp_path / name
        torch.save(small[1].state_dict() if content is None else content, path, **options)
        return path

    return save
