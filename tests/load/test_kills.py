"""Killed at any moment: after reruns the table is that of one clean load, and nothing is left behind.

HARBORCTL_TEST_KILLS (5 or more) makes it as long as one likes: so many clients are killed of each kind of load, a fifth
as many servers, and half as many connections are cut. HARBORCTL_TEST_KILL_ROWS is the size of a load.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import SystemRandom
from typing import Any

import psycopg
import pytest

from harborctl.db.migrations import upgrade
from harborctl.embedded.server import Server
from tests.conftest import engine_of
from tests.load.proxy import after_bytes, at_commit, proxied

KILLS = int(os.environ.get("HARBORCTL_TEST_KILLS", "1"))
ROWS = int(os.environ.get("HARBORCTL_TEST_KILL_ROWS", "24000"))

RANDOM = SystemRandom()

LOADS = {
    "upsert": ("--mode", "upsert"),
    "chunks": ("--commit-every", str(ROWS // 12)),
    "jobs": ("--jobs", "2"),
}
# The short form kills servers under the kind of load that leaves most behind, and cuts what `test_chunks` does not.
SERVER_LOADS = tuple(LOADS) if KILLS >= 5 else ("chunks",)
CUT_LOADS = tuple(LOADS) if KILLS >= 5 else ("upsert",)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of this module's own, to be killed."""
    server = Server(tmp_path_factory.mktemp("killed"))
    with server.leased():
        engine = engine_of(server.url)
        upgrade(engine)
        engine.dispose()
        yield server


@pytest.fixture
def target(server: Server) -> str:
    """Its URL, with an empty table."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS t; TRUNCATE harborctl.loads CASCADE")
        connection.execute("CREATE TABLE t (id integer PRIMARY KEY, v text)")
    return server.url


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("feed") / "t.csv"
    path.write_text("id,v\n" + "".join(f'{number},"{number}\n{"x" * 200}"\n' for number in range(ROWS)))
    return path


def started(url: str, feed: Path, kind: str, scratch: Path) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "harborctl", "load", str(feed), "-t", "t", *LOADS[kind], "--json", "--url", url]
    return subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch)},
    )


def ended(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any]]:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, json.loads(out) if out else {}


def run_until_done(
    url: str, feed: Path, kind: str, scratch: Path, disturb: Callable[[subprocess.Popen[str]], object], times: int
) -> int:
    """Disturb so many runs, loading again after each until one is done; how many were hit before they were."""
    hits = 0
    for number in range(times):
        process = started(url, feed, kind, scratch)
        disturb(process)
        code, summary = ended(process)
        hits += code != 0
        for _ in range(10):
            if code == 0:
                break
            code, summary = ended(started(url, feed, kind, scratch))
        assert code == 0, summary
        assert summary["status"] in {"loaded", "already_loaded"}
        check(url, scratch, number)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("TRUNCATE t; TRUNCATE harborctl.loads CASCADE")
    return hits


def check(url: str, scratch: Path, number: int) -> None:
    """One clean load, and nothing else."""
    clean = (ROWS, ROWS, 0, ROWS - 1)
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute("SELECT count(*), count(DISTINCT id), min(id), max(id) FROM t").fetchone()
        assert rows == clean, number
        loads = connection.execute(
            "SELECT status, rows_read FROM harborctl.loads WHERE status LIKE 'loaded%'"
        ).fetchall()
        assert loads == [("loaded", ROWS)]
        chunks = connection.execute(
            "SELECT coalesce(sum(rows), 0), count(*) FROM harborctl.chunks JOIN harborctl.loads ON id = load_id"
        ).fetchone()
        assert chunks
        assert chunks[0] in {0, ROWS}
        for leftover in (
            "SELECT count(*) FROM pg_class WHERE relname LIKE 'harborctl_%'",
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'",
        ):
            deadline = time.monotonic() + 10
            while connection.execute(leftover).fetchone() != (0,):
                assert time.monotonic() < deadline, leftover
                time.sleep(0.05)
    assert list(scratch.iterdir()) == []


@pytest.fixture(scope="module")
def usual_seconds(server: Server, feed: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long an undisturbed load takes."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS t; CREATE TABLE t (id integer PRIMARY KEY, v text)")
    start = time.monotonic()
    assert ended(started(server.url, feed, "upsert", tmp_path_factory.mktemp("scratch")))[0] == 0
    return time.monotonic() - start


@pytest.mark.parametrize("kind", LOADS)
def test_a_killed_client(target: str, feed: Path, tmp_path: Path, usual_seconds: float, kind: str) -> None:
    def kill(process: subprocess.Popen[str]) -> None:
        time.sleep(RANDOM.uniform(0.2, 1.1) * usual_seconds)
        process.kill()

    run_until_done(target, feed, kind, tmp_path, kill, KILLS)


@pytest.mark.parametrize("kind", SERVER_LOADS)
def test_a_killed_server(
    server: Server, target: str, feed: Path, tmp_path: Path, usual_seconds: float, kind: str
) -> None:
    def kill(_: subprocess.Popen[str]) -> None:
        time.sleep(RANDOM.uniform(0.3, 1.0) * usual_seconds)
        pid = server.state().pid
        assert pid is not None
        os.kill(pid, signal.SIGQUIT)  # what `pg_ctl stop -m immediate` does
        server.stop()  # waits until it is down
        server.start()

    run_until_done(target, feed, kind, tmp_path, kill, max(KILLS // 5, 1))


@pytest.mark.parametrize("kind", CUT_LOADS)
def test_a_cut_connection(target: str, feed: Path, tmp_path: Path, kind: str) -> None:
    size = feed.stat().st_size
    for number in range(max(KILLS // 2, 1)):
        cut = at_commit(RANDOM.randint(1, 6)) if number % 2 else after_bytes(RANDOM.randrange(size))
        with proxied(target, cut) as (url, _):
            process = started(url, feed, kind, tmp_path)
            code, summary = ended(process)
        assert code == 0, summary
        check(target, tmp_path, number)
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute("TRUNCATE t; TRUNCATE harborctl.loads CASCADE")
