"""A real ssh server on loopback, with its own keys and configuration."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

SSHD_CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
SetEnv TMPDIR={folder}/tmp {environment}
"""
SSH_CONFIG = """
Host *
  IdentityFile {folder}/{key}
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/{known}
  GlobalKnownHostsFile /dev/null
  PreferredAuthentications publickey
Host pi
  HostName 127.0.0.1
  Port {port}
"""


@dataclass
class Server:
    """A running server and the configuration of the client."""

    folder: Path
    port: int

    @property
    def uri(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    @property
    def tmp(self) -> Path:
        """The folder for the sessions' temporary files; nothing may be left in it."""
        return self.folder / "tmp"

    def configure_client(self, key: str = "key", known: str = "known_hosts") -> None:
        """Choose the client's key and its file of known hosts."""
        text = SSH_CONFIG.format(folder=self.folder, key=key, known=known, port=self.port)
        (self.folder / "ssh_config").write_text(text)

    def cut_connections(self) -> None:
        """Kill the processes that serve connections, which has the effect of a broken network."""
        pid = (self.folder / "pid").read_text().strip()
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)


def start(folder: Path, sshd: str, *, environment: str = "") -> tuple[Server, subprocess.Popen]:
    """Make keys, start a server, and write `folder`/bin/ssh, which uses the test's config."""
    for name in ("host_key", "key", "other_key"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True
        )
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Server(folder, port)
    server.tmp.mkdir()
    for name, key in (("known_hosts", "host_key"), ("changed_hosts", "other_key")):
        public = (folder / f"{key}.pub").read_text()
        (folder / name).write_text(f"[127.0.0.1]:{port} {public}")
    (folder / "no_hosts").touch()
    server.configure_client()
    client = folder / "bin" / "ssh"
    client.parent.mkdir()
    client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/ssh_config "$@"\n')
    client.chmod(0o755)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # for privilege separation
    text = SSHD_CONFIG.format(folder=folder, port=port, environment=environment)
    (folder / "sshd_config").write_text(text)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=log)
    for _ in range(1000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, process
        time.sleep(0.1)
    raise RuntimeError((folder / "log").read_text())
