"""Servers with TimescaleDB and Citus, thrown away afterwards: what `conftest.py` starts. See README.md.

python -m tests.engines.servers FOLDER

starts them by hand, says how they are reached, and stops them at Ctrl-C.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from collections.abc import Iterator

HOST, DATABASE, USER = "127.0.0.1", "engines", "engines"
# A server does not run as root.
SERVER_USER = "postgres" if os.geteuid() == 0 else None
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "300",
    "max_prepared_transactions": "100",
    "max_worker_processes": "32",
    "timezone": "UTC",
}
TIMESCALEDB = {"shared_preload_libraries": "timescaledb", "timescaledb.telemetry_level": "off"}
CITUS = {
    "shared_preload_libraries": "citus",
    "citus.node_conninfo": "sslmode=disable",
    "citus.local_hostname": HOST,
    "citus.max_adaptive_executor_pool_size": "4",
    "citus.enable_statistics_collection": "off",
}


@dataclass(frozen=True, slots=True)
class Engines:
    """The URLs of a superuser, each of a database; None for an engine that is not installed."""

    timescaledb: str | None = None
    citus: str | None = None
    citus_worker: str | None = None


class Servers:
    """Servers that are copies of one, which was never started."""

    def __init__(self, programs: Path, home: Path) -> None:
        self._programs = programs
        self._home = home
        self._run("initdb", "-D", home / "new", "-U", USER, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N")

    def has(self, extension: str) -> bool:
        """Whether it is installed beside the programs."""
        share = subprocess.run(
            [self._programs / "pg_config", "--sharedir"], check=True, capture_output=True, text=True
        ).stdout.strip()
        return (Path(share) / "extension" / f"{extension}.control").exists()

    @contextmanager
    def running(self, name: str, settings: dict[str, str]) -> Iterator[int]:
        """A server with an empty database that has the extension; its port."""
        data = self._home / name
        self._as_server("cp", "-r", self._home / "new", data)
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port: int = probe.getsockname()[1]
        lines = [f"{name} = '{value}'\n" for name, value in {**SETTINGS, **settings, "port": str(port)}.items()]
        with (data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(lines)
        self._run("pg_ctl", "-D", data, "-l", data / "log", "-w", "start")
        try:
            with psycopg.connect(url(port, "postgres"), autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
            with psycopg.connect(url(port), autocommit=True) as connection:
                connection.execute(
                    sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(settings["shared_preload_libraries"]))
                )
            yield port
        finally:
            self._run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str | Path) -> None:
        self._as_server(self._programs / program, *arguments)

    @staticmethod
    def _as_server(*command: str | Path) -> None:
        subprocess.run(command, user=SERVER_USER, cwd="/", check=True, stdout=subprocess.DEVNULL)


def url(port: int, database: str = DATABASE) -> str:
    """Of the superuser."""
    return f"postgresql://{USER}@{HOST}:{port}/{database}"


@contextmanager
def started(programs: Path) -> Iterator[Engines]:
    """One server with TimescaleDB, and a Citus coordinator with two workers."""
    home = Path(tempfile.mkdtemp(prefix="harborctl-engines-"))
    if SERVER_USER:
        shutil.chown(home, SERVER_USER)
    try:
        with ExitStack() as stack:
            servers = Servers(programs, home)
            timescaledb = citus = worker = None
            if servers.has("timescaledb"):
                timescaledb = url(stack.enter_context(servers.running("timescaledb", TIMESCALEDB)))
            if servers.has("citus"):
                ports = [
                    stack.enter_context(servers.running(name, CITUS)) for name in ("coordinator", "first", "second")
                ]
                citus, worker = url(ports[0]), url(ports[1])
                with psycopg.connect(citus, autocommit=True) as connection:
                    connection.execute("SELECT citus_set_coordinator_host(%s, %s)", (HOST, ports[0]))
                    for port in ports[1:]:
                        connection.execute("SELECT citus_add_node(%s, %s)", (HOST, port))
            yield Engines(timescaledb, citus, worker)
    finally:
        shutil.rmtree(home)


def main() -> int:
    """Start them for somebody who tries things out."""
    if len(sys.argv) != 2:
        sys.stderr.write(__doc__ or "")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with started(Path(sys.argv[1])) as engines:
            sys.stdout.write(f"{engines}\n")
            sys.stdout.flush()
            signal.pause()
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
