"""One server for all tests, a fresh database for each, and the command line as a real process.

The server is the embedded one, or the one that HARBORCTL_TEST_URL names (as a superuser).
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import psycopg
import pytest
import sqlalchemy
from hypothesis import settings
from psycopg import sql

from harborctl.db.engine import set_up_transactions
from harborctl.db.migrations import upgrade
from harborctl.embedded.server import Server
from harborctl.model import ConnectionOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

# What the tests throw away need not survive a power cut, and is too small to be compiled for or vacuumed.
OFF = ("fsync", "synchronous_commit", "full_page_writes", "jit", "autovacuum")


@dataclass(frozen=True, slots=True)
class Run:
    """How a process ended, and everything that it wrote."""

    code: int
    stdout: str
    stderr: str


class Harborctl(Protocol):
    """Runs the command line; `env` adds to the environment, and takes a variable out where it says None."""

    def __call__(
        self,
        *arguments: str | Path,
        env: dict[str, str | None] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
    ) -> Run: ...


# Every day the same examples; a long run, which a variable of tests/load/sizes.py asks for, finds others.
settings.register_profile("daily", derandomize=not any("EXAMPLES" in name for name in os.environ), print_blob=True)
settings.load_profile("daily")

# No setting of the caller's reaches a test, except which server to take, and how large a test is (load/sizes.py). They
# stay in the environment: each process of pytest-xdist reads them anew.
OURS = ("PGSERVER_POSTGRES_VERSION", "HARBORCTL_TEST_")
TEST_URL = os.environ.get("HARBORCTL_TEST_URL")
for _name in list(os.environ):
    if _name.startswith(("PG", "HARBORCTL_", "DATABASE_URL", "XDG_DATA_HOME")) and not _name.startswith(OURS):
        del os.environ[_name]
os.environ["NO_COLOR"] = "1"

# A database for each test is some 300 files, which are made and deleted in memory in a fifth of the time.
MEMORY = "/dev/shm"  # noqa: S108 - tempfile makes folders of our own in it
ROOM_IN_MEMORY = 4 * 10**9
if (
    "TMPDIR" not in os.environ
    and os.access(MEMORY, os.W_OK)
    and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC  # tests write programs, too
    and shutil.disk_usage(MEMORY).free > ROOM_IN_MEMORY
):
    os.environ["TMPDIR"] = MEMORY
    tempfile.tempdir = None

# A shell that runs us in the background lets us ignore Ctrl-C, and what we start would ignore it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and under nohup


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """A superuser's URL of the server that the tests run on."""
    if TEST_URL:
        yield TEST_URL
        return
    home = Path(tempfile.mkdtemp(prefix="harborctl-tests-"))
    try:
        server = Server(home)
        with server.leased():
            with psycopg.connect(server.url, autocommit=True) as connection:
                for setting in OFF:
                    connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
                connection.execute("SELECT pg_reload_conf()")
            yield server.url
    finally:
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def template_database(server_url: str) -> Iterator[str]:
    """The name of a migrated database that nobody connects to, to be copied."""
    name = f"harborctl_template_{os.getpid()}"
    with made_database(server_url, name, template="template0") as url:
        engine = engine_of(url)
        upgrade(engine)
        engine.dispose()
        # The first session writes down what the server has to know of its catalogs: copies need not find it out again.
        engine.connect().close()
        engine.dispose()
        yield name


_numbers = count(1)


@pytest.fixture
def database_url(server_url: str, template_database: str) -> Iterator[str]:
    """The URL of a migrated database of this test's own."""
    name = f"harborctl_test_{os.getpid()}_{next(_numbers)}"
    with made_database(server_url, name, template=template_database) as url:
        yield url


@pytest.fixture
def engine(database_url: str) -> Iterator[sqlalchemy.Engine]:
    """An engine on this test's database."""
    engine = engine_of(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def harborctl(database_url: str, tmp_path: Path) -> Harborctl:
    """The `harborctl` program, in `tmp_path`, pointed at this test's database."""

    def run(
        *arguments: str | Path,
        env: dict[str, str | None] | None = None,
        cwd: Path | None = None,
        stdin: str | None = None,
    ) -> Run:
        own = {"HARBORCTL_URL": database_url, "HARBORCTL_HOME": str(tmp_path / "home")}
        settings = {**os.environ, **own, **(env or {})}
        done = subprocess.run(
            [sys.executable, "-m", "harborctl", *map(str, arguments)],
            env={name: value for name, value in settings.items() if value is not None},
            cwd=cwd or tmp_path,
            **({"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            check=False,
        )
        return Run(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def watcher() -> Iterator[tuple[str, list[str]]]:
    """A server that notes what it is called for."""
    called: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the base class calls it so
            called.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/ping/1", called
    server.shutdown()
    thread.join()
    server.server_close()


@contextmanager
def made_database(server_url: str, name: str, *, template: str, locale: str | None = None) -> Iterator[str]:
    """A database that exists inside this block; its URL."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        # Without fsync, copying files takes a quarter of the time that copying through the log takes.
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
            sql.Identifier(name), sql.Identifier(template)
        )
        connection.execute(
            create
            if locale is None
            else create + sql.SQL(" LOCALE_PROVIDER libc LOCALE {}").format(sql.Literal(locale))
        )
        try:
            yield url_of(server_url, name)
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def url_of(server_url: str, database: str) -> str:
    """The URL of another database of the same server."""
    return sqlalchemy.make_url(server_url).set(database=database).render_as_string(hide_password=False)


def engine_of(url: str) -> sqlalchemy.Engine:
    """A plain engine, made without any code of ours."""
    return sqlalchemy.create_engine(sqlalchemy.make_url(url).set(drivername="postgresql+psycopg"))


@lru_cache(maxsize=8)
def ours(engine: sqlalchemy.Engine) -> sqlalchemy.Engine:
    """An engine on the same database with the transactions of the program."""
    made = sqlalchemy.create_engine(engine.url, poolclass=sqlalchemy.NullPool)
    set_up_transactions(made, ConnectionOptions())
    return made


def execute(engine: sqlalchemy.Engine, *statements: str) -> None:
    """Carry the statements out, all in one transaction."""
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))
