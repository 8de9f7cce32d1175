"""A real PgBouncer in front of a server. Where it is not installed, tests that need one are skipped, and say so."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

# Debian has it where only root looks.
PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

needs_pgbouncer = pytest.mark.skipif(PROGRAM is None, reason="PgBouncer is not installed: apt-get install pgbouncer")


@contextmanager
def pooled(url: str, mode: str, size: int, **settings: object) -> Iterator[str]:
    """An URL by which the server of `url` is reached through a pool of `size` sessions, pooled by transaction or by
    session. Ours needs `&pgbouncer=true` besides."""
    assert PROGRAM, "mark the test with needs_pgbouncer"
    parsed = sqlalchemy.make_url(url)
    host = str(parsed.query.get("host") or parsed.host or "localhost")
    port = parsed.query.get("port") or parsed.port or 5432
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        folder, own_port = Path(name), _free_port()
        all_settings = {
            "listen_addr": "127.0.0.1", "listen_port": own_port, "unix_socket_dir": "", "auth_type": "trust",
            "auth_file": folder / "users", "pool_mode": mode, "default_pool_size": size, "logfile": folder / "log",
            "pidfile": folder / "pid", "admin_users": parsed.username, **settings,
        }  # fmt: skip
        lines = [f"{name} = {value}" for name, value in all_settings.items()]
        ini = folder / "pgbouncer.ini"
        # Only root can walk to the sockets of root's servers; the folder where a process begins is there for it.
        place = "/proc/self/cwd" if host.startswith("/") else host
        ini.write_text("\n".join(["[databases]", f"* = host={place} port={port}", "[pgbouncer]", *lines, ""]))
        (folder / "users").write_text(f'"{parsed.username}" "{parsed.password or ""}"\n')
        with _running(folder, ini, Path(host)):
            address = f"127.0.0.1:{own_port}/{parsed.database}"
            pooled_url = f"postgresql://{parsed.username}@{address}?sslmode=disable&gssencmode=disable"
            _wait_for(pooled_url, folder / "log")
            yield pooled_url


@contextmanager
def _running(folder: Path, ini: Path, socket_folder: Path) -> Iterator[None]:
    assert PROGRAM
    account: dict[str, object] = {}
    if os.geteuid() == 0:  # which it refuses to be
        owner = socket_folder.stat() if socket_folder.is_absolute() else None
        user = owner.st_uid if owner and owner.st_uid else 65534
        account = {"user": user, "group": owner.st_gid if owner and owner.st_gid else 65534, "extra_groups": []}
        for path in (folder, ini, folder / "users"):
            os.chown(path, user, -1)
    place = socket_folder if socket_folder.is_absolute() else folder
    process = subprocess.Popen([PROGRAM, "-q", ini], cwd=place, **account)  # type: ignore[call-overload]  # accounts vary
    try:
        yield
    finally:
        process.terminate()  # at once: twice SIGINT would be for a safe end
        try:
            process.wait(10)
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise AssertionError(log.read_text() if log.exists() else "PgBouncer did not start") from error
            time.sleep(0.02)
        else:
            return
