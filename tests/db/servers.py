"""A server with passwords, to be turned away by: the embedded one trusts everybody who reaches its socket."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from harborctl.embedded.programs import Programs, find_programs

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSWORD = "s3cret-Pass"  # noqa: S105  # a server that lives for some seconds


@dataclass(frozen=True, slots=True)
class PasswordServer:
    """Listens on 127.0.0.1 and asks everybody for a password; `postgres` has PASSWORD."""

    port: int
    process: subprocess.Popen[bytes]

    def url(self, user: str = "postgres", database: str = "postgres", password: str | None = PASSWORD) -> str:
        """An URL of this server."""
        login = f"{user}:{password}" if password else user
        return f"postgresql://{login}@127.0.0.1:{self.port}/{database}"


@contextmanager
def password_server(programs: Programs | None = None) -> Iterator[PasswordServer]:
    """A new server of these programs, or the embedded ones, which lives as long as the block."""
    home = Path(tempfile.mkdtemp(prefix="harborctl-password-server-"))
    programs = programs or find_programs()
    data = home / "data"
    data.mkdir(mode=0o700)
    programs.own(data)
    (data.parent / "password").write_text(PASSWORD)
    home.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    try:
        options = [
            "--username=postgres",
            "--auth=scram-sha-256",
            f"--pwfile={home / 'password'}",
            "--no-sync",
            "--encoding=UTF8",
        ]
        initdb = [programs.path("initdb"), "-D", programs.name_of(data), *options, "--locale=C"]
        subprocess.run(initdb, cwd=data, check=True, capture_output=True, **programs.settings())
        settings = [f"--port={port}", "--listen_addresses=127.0.0.1", "--unix_socket_directories=", "--fsync=off"]
        postgres = [programs.path("postgres"), "-D", programs.name_of(data), *settings]
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(postgres, cwd=data, stdout=log, stderr=log, **programs.settings())
        try:
            server = PasswordServer(port, process)
            _wait_for(server)
            yield server
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()
    finally:
        shutil.rmtree(home)


def _wait_for(server: PasswordServer) -> None:
    for _ in range(1000):
        try:
            psycopg.connect(server.url()).close()
        except psycopg.OperationalError:
            time.sleep(0.01)
        else:
            return
    raise AssertionError("the server with passwords does not start")
