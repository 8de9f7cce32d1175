"""What goes wrong in mid-load, for real: the command ends soon, says so, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
import pytest

from harborctl.embedded.server import Server
from tests.load.conftest import wait_for

# The bound on the time from the event to the end of the process.
SECONDS_TO_END = 2.0

CREATE = "CREATE TABLE items (id integer, name text)"

Database = psycopg.Connection[Any]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, to be mistreated."""
    server = Server(tmp_path / "server")
    with server.leased():
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(CREATE)
        yield server


def endless_rows() -> Iterator[bytes]:
    yield b"id,name\n"
    while True:
        yield b"".join(b"%d,some text that fills the line\n" % number for number in range(20_000))


@contextmanager
def begin(url: str, writer: str, tmp_path: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """A load that goes on for as long as it is fed."""
    arguments = [sys.executable, "-m", "harborctl", "load", "-", "-t", "items", "--url", url, "--writer", writer]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [*arguments, "--no-ledger", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            assert stream
            stream.close()


def feed_until_it_ends(
    process: subprocess.Popen[bytes], event: Any, after: int | None = None, patience: float = 10
) -> float:
    """Feed rows, make the event happen after so many blocks; the seconds from there to the end of the process."""
    assert process.stdin
    if after is None:
        after = 30 if "copy" in process.args else 4  # type: ignore[operator]  # we gave it a list
    happened = 0.0
    try:
        for number, block in enumerate(endless_rows()):
            if number == after:
                event()
                happened = time.monotonic()
            process.stdin.write(block)
            if happened and time.monotonic() - happened > patience:
                break
    except BrokenPipeError:
        pass
    process.wait(timeout=30)
    ended = time.monotonic()
    return ended - happened


def assert_ended(process: subprocess.Popen[bytes], code: int, words: str) -> None:
    assert process.stdout
    assert process.stderr
    out, err = process.stdout.read().decode(), process.stderr.read().decode()
    assert (process.returncode, out) == (code, ""), err
    assert err.startswith("error: ")
    assert words in err
    assert "Traceback" not in err
    assert err.count("error: ") == 1


@pytest.mark.parametrize("kill", [signal.SIGQUIT, signal.SIGKILL])
def test_a_killed_server(server: Server, tmp_path: Path, writer: str, kill: signal.Signals) -> None:
    pid = server.state().pid
    assert pid is not None
    with begin(server.url, writer, tmp_path) as process:
        seconds = feed_until_it_ends(process, lambda: _kill_all(pid, kill))
        assert_ended(process, 3, "connection")
    assert seconds < SECONDS_TO_END
    with server.exclusively():
        server.stop()
    with server.leased(), psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchall() == [(0,)]


def _kill_all(postmaster: int, kill: signal.Signals) -> None:
    """SIGQUIT makes the server go down at once, as `pg_ctl stop -m immediate` does. SIGKILL gives it no time to tell
    its children."""
    import psutil

    children = psutil.Process(postmaster).children()
    os.kill(postmaster, kill)
    if kill is signal.SIGKILL:
        for child in children:
            child.kill()


def test_a_terminated_backend(database: Database, database_url: str, tmp_path: Path, writer: str) -> None:
    database.execute(CREATE)
    query = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE application_name = 'harborctl' AND datname = current_database()"
    )
    with begin(database_url, writer, tmp_path) as process:
        seconds = feed_until_it_ends(process, lambda: database.execute(query))
        assert_ended(process, 3, "connection")
    assert seconds < SECONDS_TO_END
    assert database.execute("SELECT count(*) FROM items").fetchall() == [(0,)]


@pytest.mark.parametrize(
    ("mode", "stop"), [("append", signal.SIGINT), ("upsert", signal.SIGTERM), ("append", signal.SIGHUP)]
)
def test_an_interrupted_load(
    database: Database, database_url: str, tmp_path: Path, writer: str, mode: str, stop: signal.Signals
) -> None:
    database.execute(CREATE)
    if mode == "upsert":
        database.execute("ALTER TABLE items ADD PRIMARY KEY (id)")
    with begin(database_url, writer, tmp_path, "--mode", mode) as process:
        seconds = feed_until_it_ends(process, lambda: process.send_signal(stop))
        assert_ended(process, 130, "interrupted")
    assert seconds < SECONDS_TO_END
    assert database.execute("SELECT count(*) FROM items").fetchall() == [(0,)]
    wait_for(database, "SELECT (count(*) = 0)::int FROM pg_class WHERE relname LIKE 'harborctl_%'")
    assert list(tmp_path.glob("tmp*")) == []


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 4 MB. Not among pytest's folders: they are closed to the user whom root's servers run as."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", name], capture_output=True, text=True, check=False
        )
        if mounted.returncode:
            pytest.skip(f"a small disk takes the right to mount one: {mounted.stderr.strip()}")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


def test_a_full_disk(server: Server, small_disk: Path, tmp_path: Path, writer: str) -> None:
    (small_disk / "space").mkdir()
    owner = server.data.stat()
    os.chown(small_disk / "space", owner.st_uid, owner.st_gid)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"CREATE TABLESPACE small LOCATION '{small_disk}/space'")
        connection.execute("DROP TABLE items; " + CREATE + " TABLESPACE small")
        with begin(server.url, writer, tmp_path) as process:
            feed_until_it_ends(process, lambda: None, after=0, patience=100)
            assert_ended(process, 1, "space")
        assert connection.execute("SELECT count(*) FROM items").fetchall() == [(0,)]
        connection.execute("DROP TABLE items")
        connection.execute("DROP TABLESPACE small")
