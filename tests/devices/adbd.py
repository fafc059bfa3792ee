"""A small device daemon that speaks the adb wire protocol, for the real adb client.

It serves connection and authorization, `shell,v2` with input and exit codes, and the file transfer
of `sync:` (stat, send, receive). Commands run in this machine's shell; /data/local/tmp stands for a
folder of the test. Where `emulator` is set, it runs the loader of a program as a phone's kernel
would. The protocol is described in AOSP's packages/modules/adb: protocol.txt, SYNC.TXT and
shell_protocol.h.
"""

import contextlib
import os
import socket
import struct
import subprocess
import threading
from pathlib import Path

FOLDER = "/data/local/tmp"
FLIP_AFTER = 1 << 20
VERSION, MAX_DATA = 0x01000000, 1 << 18
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
LOADER = 'exec "$l"'  # in the script that starts the native runner
BANNER = b"device::ro.product.name=test;ro.product.model=Test;features=shell_v2,cmd\0"


class Daemon:
    """One phone on loopback.

    Args:
        folder: Stands for /data/local/tmp.
        state: "device", "unauthorized" (it accepts no key) or "offline" (it never answers).
    """

    def __init__(self, folder: Path, state: str = "device") -> None:
        self.folder = folder
        self.state = state
        self.cut_after_bytes: int | None = None  # of a pushed file, then the connection is cut
        self.flips_a_byte = False  # of every pushed file
        self.cut_input_after_bytes: int | None = None  # of a command, then the connection is cut
        self.flips_input = False  # of commands that get much input
        self.disk_is_full = False
        self.environment: dict[str, str] = {}
        self.emulator = ""  # a command that runs ARM64 programs
        self._server = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def serial(self) -> str:
        return f"127.0.0.1:{self._server.getsockname()[1]}"

    def close(self) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Break all connections."""
        for connection in self._open:
            connection.close() if connection.fileno() < 0 else _break(connection)
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=_Connection(self, connection).serve, daemon=True).start()


def _break(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


class _Connection:
    """The connection of one client: its messages and the streams that it opened."""

    def __init__(self, daemon: Daemon, connection: socket.socket) -> None:
        self.daemon = daemon
        self.socket = connection
        self.streams: dict[int, _Stream] = {}
        self._lock = threading.Lock()
        self._next = 1

    def serve(self) -> None:
        try:
            while True:
                command, arg0, arg1, data = self._receive()
                self._answer(command, arg0, arg1, data)
        except (OSError, EOFError):
            for stream in list(self.streams.values()):
                stream.close()
            _break(self.socket)

    def _answer(self, command: bytes, arg0: int, arg1: int, data: bytes) -> None:
        if command in (b"CNXN", b"AUTH"):
            if self.daemon.state == "device":
                self.send(b"CNXN", VERSION, MAX_DATA, BANNER)
            elif self.daemon.state == "unauthorized" and (command == b"CNXN" or arg0 != 3):
                self.send(b"AUTH", 1, 0, bytes(20))  # a token to sign; every signature is refused
        elif command == b"OPEN":
            stream = _Stream(self, self._next, arg0)
            self.streams[self._next] = stream
            self._next += 1
            service = data.rstrip(b"\0").decode()
            self.send(b"OKAY", stream.ours, stream.theirs)
            threading.Thread(target=stream.run, args=(service,), daemon=True).start()
        elif arg1 in self.streams:
            stream = self.streams[arg1]
            if command == b"OKAY":
                stream.may_write.set()
            elif command == b"WRTE":
                stream.feed(data)
                self.send(b"OKAY", stream.ours, stream.theirs)
            elif command == b"CLSE":
                stream.close()

    def send(self, command: bytes, arg0: int, arg1: int, data: bytes = b"") -> None:
        number = int.from_bytes(command, "little")
        check = sum(data) & 0xFFFFFFFF
        header = struct.pack("<6I", number, arg0, arg1, len(data), check, number ^ 0xFFFFFFFF)
        with self._lock:
            self.socket.sendall(header + data)

    def _receive(self) -> tuple[bytes, int, int, bytes]:
        number, arg0, arg1, size, _, magic = struct.unpack("<6I", self._exactly(24))
        assert magic == number ^ 0xFFFFFFFF
        return number.to_bytes(4, "little"), arg0, arg1, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


class _Stream:
    """One service that the client has opened."""

    def __init__(self, connection: _Connection, ours: int, theirs: int) -> None:
        self.connection, self.ours, self.theirs = connection, ours, theirs
        self.may_write = threading.Event()
        self.may_write.set()
        self._inbox = b""
        self._news = threading.Condition()
        self._closed = False
        self._process: subprocess.Popen | None = None

    def run(self, service: str) -> None:
        try:
            if service.startswith("shell,v2"):
                self._shell(service.partition(":")[2])
            elif service.startswith("sync:"):
                self._sync()
            self.connection.send(b"CLSE", self.ours, self.theirs)
        except (OSError, EOFError):
            self.close()

    def feed(self, data: bytes) -> None:
        with self._news:
            self._inbox += data
            self._news.notify()

    def close(self) -> None:
        with self._news:
            self._closed = True
            self._news.notify()
        self.may_write.set()
        if self._process is not None:
            self._process.kill()
        self.connection.streams.pop(self.ours, None)

    def _write(self, data: bytes) -> None:
        for start in range(0, len(data), MAX_DATA):
            self.may_write.wait()
            if self._closed:
                raise EOFError
            self.may_write.clear()
            part = data[start : start + MAX_DATA]
            self.connection.send(b"WRTE", self.ours, self.theirs, part)

    def _read(self, size: int) -> bytes:
        with self._news:
            self._news.wait_for(lambda: len(self._inbox) >= size or self._closed)
            if len(self._inbox) < size:
                raise EOFError
            data, self._inbox = self._inbox[:size], self._inbox[size:]
            return data

    def _here(self, text: str) -> str:
        daemon = self.connection.daemon
        text = text.replace(LOADER, LOADER.replace("exec", f"exec {daemon.emulator}"))
        return text.replace(FOLDER, str(daemon.folder))

    def _shell(self, command: str) -> None:
        environment = os.environ | self.connection.daemon.environment
        with subprocess.Popen(
            ["sh", "-c", self._here(command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        ) as self._process:
            threading.Thread(target=self._pass_in, args=(self._process.stdin,), daemon=True).start()
            errors = threading.Thread(target=self._pass_on, args=(STDERR, self._process.stderr))
            errors.start()
            self._pass_on(STDOUT, self._process.stdout)
            errors.join()
            code = self._process.wait()
        self._write(struct.pack("<BIB", EXIT, 1, code if code >= 0 else 128 - code))

    def _pass_in(self, pipe) -> None:
        """Pass the client's input on until it ends, or the connection breaks."""
        sent = 0
        with contextlib.suppress(OSError, EOFError, ValueError), pipe:
            while True:
                kind, size = struct.unpack("<BI", self._read(5))
                data = self._read(size)
                if kind == CLOSE_STDIN:
                    return
                if kind == STDIN:
                    sent += len(data)
                    pipe.write(self._damaged(data, sent))
                    pipe.flush()

    def _damaged(self, data: bytes, sent: int) -> bytes:
        """Return input as the faults of the daemon change it."""
        daemon = self.connection.daemon
        if daemon.cut_input_after_bytes is not None and sent > daemon.cut_input_after_bytes:
            daemon.cut()
            raise EOFError
        if daemon.flips_input and sent > FLIP_AFTER:
            return data[:-1] + bytes([data[-1] ^ 1])
        return data

    def _pass_on(self, kind: int, pipe) -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := pipe.read1(1 << 16):
                self._write(struct.pack("<BI", kind, len(data)) + data)

    def _sync(self) -> None:
        while True:
            name, size = struct.unpack("<4sI", self._read(8))
            if name == b"QUIT":
                return
            path = self._here(self._read(size).decode())
            {b"STAT": self._stat, b"SEND": self._receive, b"RECV": self._send}[name](path)

    def _stat(self, path: str) -> None:
        try:
            found = Path(path).stat()
            fields = (found.st_mode, found.st_size, int(found.st_mtime))
        except OSError:
            fields = (0, 0, 0)
        self._write(struct.pack("<4s3I", b"STAT", *fields))

    def _receive(self, path_and_mode: str) -> None:
        path, _, mode = path_and_mode.rpartition(",")
        data = b""
        while True:
            name, size = struct.unpack("<4sI", self._read(8))
            if name == b"DONE":
                break
            data += self._read(size)
            limit = self.connection.daemon.cut_after_bytes
            if limit is not None and len(data) > limit:
                Path(path).write_bytes(data[:limit])
                self.connection.daemon.cut()
                raise EOFError
        if self.connection.daemon.disk_is_full:
            return self._fail("write failed: No space left on device")
        if self.connection.daemon.flips_a_byte:
            data = bytes([data[0] ^ 1]) + data[1:]
        Path(path).write_bytes(data)
        Path(path).chmod(int(mode) & 0o777)
        return self._write(struct.pack("<4sI", b"OKAY", 0))

    def _send(self, path: str) -> None:
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            return self._fail(f"open failed: {error.strerror}")
        for start in range(0, len(data), 1 << 16):
            part = data[start : start + (1 << 16)]
            self._write(struct.pack("<4sI", b"DATA", len(part)) + part)
        return self._write(struct.pack("<4sI", b"DONE", 0))

    def _fail(self, reason: str) -> None:
        text = reason.encode()
        self._write(struct.pack("<4sI", b"FAIL", len(text)) + text)
