"""Random loads, through proxies that cut and poolers, while sessions end, servers restart, files change, tables are
locked, disks fill and signals come. After each: the table is what the model says, or the load failed and said truly
what is in; an innocent client beside it lost nothing; nothing is left behind; and a rerun ends what was begun.

HARBORCTL_TEST_CHAOS is how many rounds there are, from HARBORCTL_TEST_FIRST_ROUND on: each is made by its number.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Self

import psycopg
import pytest

from harborctl.db.migrations import upgrade
from harborctl.embedded.server import Server
from harborctl.load.ledger.history import past_loads
from tests.conftest import engine_of, ours
from tests.load.chaos import BAD, Feed, Round, Row, Rows, loaded, made_rows, planned, rows_of
from tests.load.proxy import after_bytes, at_commit, proxied
from tests.pooler import needs_pgbouncer, pooled

pytestmark = needs_pgbouncer

ROUNDS = int(os.environ.get("HARBORCTL_TEST_CHAOS", "0"))
FIRST = int(os.environ.get("HARBORCTL_TEST_FIRST_ROUND", "1"))
# Of every day: a pooler of each kind, and most of what can happen.
DAILY = (13, 22, 25, 31)

# Seconds in which what was cut off must be over.
PATIENCE = 20.0

Database = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def small_disk() -> Iterator[Path | None]:
    """A file system of 24 MB, or None where none can be mounted."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", name]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            yield None
            return
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, small_disk: Path | None) -> Iterator[Server]:
    """A server of this module's own, to be mistreated, with a tablespace on the small disk."""
    server = Server(tmp_path_factory.mktemp("chaos"))
    with server.leased():
        engine = engine_of(server.url)
        upgrade(engine)
        engine.dispose()
        with psycopg.connect(server.url, autocommit=True) as database:
            database.execute("ALTER SYSTEM SET fsync = off")
            database.execute("CREATE TABLE others (id integer)")
            if small_disk:
                space, owner = small_disk / "space", server.data.stat()
                space.mkdir()
                os.chown(space, owner.st_uid, owner.st_gid)
                database.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        yield server


class Innocent:
    """A client that works beside the load: short and long transactions, by the same way."""

    def __init__(self, url: str, *, keeps_session: bool) -> None:
        self._url = url
        self._keeps_session = keeps_session
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.committed: set[int] = set()
        self.unknown: set[int] = set()
        self.errors: list[str] = []
        self.strange: set[str] = set()
        self._number = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._url, prepare_threshold=None, application_name="innocent") as session:
                    self._transactions(session)
            except psycopg.Error as error:
                self.errors.append(repr(error))
                self._stop.wait(0.05)

    def _transactions(self, session: Database) -> None:
        while not self._stop.is_set():
            self._number += 1
            session.execute("INSERT INTO others VALUES (%s)", (self._number,))
            # What another client has set for the session would be in force for this one, too.
            query = (
                "SELECT name || '=' || setting FROM pg_settings WHERE source = 'session' AND name NOT IN"
                " ('application_name', 'client_encoding', 'DateStyle', 'TimeZone', 'standard_conforming_strings')"
            )
            self.strange |= {name for (name,) in session.execute(query)}
            self._stop.wait(0.15 if self._number % 8 == 0 else 0.01)
            self.unknown.add(self._number)
            session.commit()
            self.unknown.discard(self._number)
            self.committed.add(self._number)
            if not self._keeps_session:
                return


class Scene:
    """One round: its table, its files, and the load."""

    def __init__(self, plan: Round, server: Server, small_disk: Path | None, folder: Path) -> None:
        self.plan = plan
        self.server = server
        self.disk = small_disk
        self.random = Random(plan.seed)  # noqa: S311  # no secret
        self.scratch, self.work = folder / "tmp", folder / "work"
        self.scratch.mkdir()
        self.work.mkdir()
        self.feed = Feed(self.work, plan.kind)
        self.before: Counter[Row] = Counter()
        self.first: list[str] = []
        self._rows: list[Rows] = []

    def set_up(self) -> None:
        """The table with some rows, and the files."""
        plan = self.plan
        before = made_rows(self.random, 500, 0, 1)
        self._rows = [
            made_rows(self.random, plan.rows, plan.bad, 2000 + number * plan.rows * 2) for number in range(plan.files)
        ]
        if plan.mode in {"ignore", "upsert", "sync"}:  # some are there already, equal and not
            self._rows[0] = before[:100] + [(number, f"{text}!") for number, text in before[100:200]] + self._rows[0]
        self.first = [self.feed.put(number, rows) for number, rows in enumerate(self._rows)]
        self.before = Counter(before)
        key = "PRIMARY KEY" if plan.mode not in {"append", "replace"} else ""
        space = "small" if plan.event == "fill" and self.disk else "pg_default"
        with psycopg.connect(self.server.url, autocommit=True) as database:
            database.execute("DROP TABLE IF EXISTS items; TRUNCATE harborctl.loads CASCADE; TRUNCATE others")
            database.execute(f"ALTER DATABASE postgres SET temp_tablespaces = '{space}'")
            database.execute(f"SET default_tablespace = {space}")
            database.execute(f"CREATE TABLE items (id integer {key}, v text)")
            with database.cursor() as cursor, cursor.copy("COPY items FROM STDIN") as copy:
                for row in before:
                    copy.write_row(row)
            if plan.slow:
                database.execute(
                    "CREATE OR REPLACE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN IF NEW.id % 500 = 0 THEN PERFORM pg_sleep(0.02); END IF; RETURN NEW; END $$;"
                    "CREATE TRIGGER dawdle BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION dawdle()"
                )

    def restore(self) -> None:
        """The files as they were first."""
        for number, rows in enumerate(self._rows):
            self.feed.put(number, rows)

    @contextmanager
    def address(self) -> Iterator[tuple[str, str]]:
        """URLs for the load and for the innocent client."""
        with ExitStack() as stack:
            url = innocent = self.server.url
            if self.plan.way != "direct":
                innocent = stack.enter_context(
                    pooled(self.server.url, self.plan.way, self.plan.pool, server_login_retry=0.2)
                )
                url = innocent + "&pgbouncer=true"
            if self.plan.cut is not None:
                cut = at_commit(self.plan.cut) if self.plan.cut > 0 else after_bytes(-self.plan.cut)
                proxied_url, _ = stack.enter_context(proxied(url, cut, linger=0.3))
                url = proxied_url + ("&pgbouncer=true" if self.plan.way != "direct" else "")
            yield url, innocent

    def start(self, url: str, limit: int | None = None) -> subprocess.Popen[str]:
        """The load."""

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        files = [str(self.feed.path(number)) for number in range(self.plan.files)]
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "harborctl",
                "load",
                *files,
                "-t",
                "items",
                "--url",
                url,
                *self.plan.options,
                "--json",
            ],
            cwd=self.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self.scratch), "PYTHONFAULTHANDLER": "1"},
            preexec_fn=limited,  # noqa: PLW1509  # before any thread of the child
        )

    def rows(self) -> Counter[Row]:
        """What is in the table."""
        with psycopg.connect(self.server.url) as database:
            return Counter(database.execute("SELECT id, v FROM items").fetchall())

    # -- what happens

    def happen(self, process: subprocess.Popen[str], stack: ExitStack) -> None:
        """Let it happen to the running load."""
        if not self.plan.early:
            wait_until(lambda: process.poll() is not None or self._sessions() > 0)
        time.sleep(self.plan.after)
        number = self.random.randrange(self.plan.files)
        match self.plan.event:
            case "terminate":
                self._query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'harborctl' AND xact_start IS NOT NULL ORDER BY random() LIMIT 1"
                )
            case "restart" | "crash" as how:
                pid = self.server.state().pid
                assert pid is not None
                os.kill(pid, signal.SIGINT if how == "restart" else signal.SIGQUIT)
                self.server.stop()  # waits until it is down
                self.server.start()
            case "replace":
                count = max(self.plan.rows + self.random.randint(-20, 20), 1)
                rows = made_rows(self.random, count, 0, 2000 + number * self.plan.rows * 2)
                self.feed.put(number, rows, in_place=self.random.random() < 0.3)
            case "truncate":
                rows = self._rows[number]
                self.feed.put(number, rows[: self.random.randrange(len(rows))], in_place=True)
            case "lock":
                blocker = stack.enter_context(psycopg.connect(self.server.url))
                blocker.execute(f"LOCK TABLE items IN {self.random.choice(('EXCLUSIVE', 'ACCESS EXCLUSIVE'))} MODE")
                time.sleep(self.random.uniform(0.1, 1.2))
                blocker.rollback()
            case "fill":
                if self.disk:
                    stack.callback((self.disk / "filler").unlink)
                    free = os.statvfs(self.disk)
                    size = free.f_bavail * free.f_frsize - self.random.randrange(1_000_000)
                    with (self.disk / "filler").open("wb") as filler:
                        os.posix_fallocate(filler.fileno(), 0, max(size, 1))
            case "signal":
                process.send_signal(getattr(signal, f"SIG{self.plan.signal}"))
                if self.plan.signal == "STOP":
                    time.sleep(0.5)
                    process.send_signal(signal.SIGCONT)

    def _query(self, query: str) -> list[Any]:
        with psycopg.connect(self.server.url, autocommit=True) as database:
            return database.execute(query).fetchall()

    def _sessions(self) -> int:
        return len(self._query("SELECT pid FROM pg_stat_activity WHERE application_name = 'harborctl'"))

    # -- what must be

    def judge(self, process: subprocess.Popen[str], out: str, err: str) -> set[str]:
        """See that the load did what it says; the versions of files that are in as a whole."""
        assert "Traceback" not in err, err
        assert "bug" not in err, err
        table, mode = self.rows(), self.plan.mode
        if process.returncode < 0 and not out:  # killed
            assert self.plan.event == "signal"
            return self._judge_unknown(table)
        summary = json.loads(out)
        code, error = process.returncode, summary["error"] or {}
        assert (code in {0, 4}) == (not error), summary
        if error.get("code") == "commit_unknown":
            return self._judge_unknown(table)
        if code in {0, 4}:
            assert summary["status"] == {0: "loaded", 4: "loaded_with_rejects"}[code], summary
            digests = [file["sha256"] for file in summary["files"]]
            assert set(digests) <= set(self.feed.versions), "a mixture of versions"
            read = rows_of(self.feed, digests)
            assert table == loaded(mode, self.before, read)
            assert summary["rows_read"] == len(read)
            assert summary["rejected"] == sum(row[0] >= BAD for row in read)
            return set(digests)
        assert code in {1, 2, 3, 5, 130}, summary
        assert not self.plan.calm or error["code"] == "too_few_sessions", summary
        if not summary.get("chunks"):
            assert table == self.before, summary
            return set()
        assert self.plan.in_parts
        self._judge_part(table, summary["rows_read"])
        return set()

    def _judge_unknown(self, table: Counter[Row]) -> set[str]:
        """Nobody has said what is in: nothing, all, or what the ledger says."""
        if table == self.before:
            return set()
        for digests in self._combinations():
            if table == loaded(self.plan.mode, self.before, rows_of(self.feed, digests)):
                return set(digests)
        assert self.plan.in_parts
        [(rows,)] = self._query("SELECT coalesce(sum(rows), 0)::integer FROM harborctl.chunks")
        self._judge_part(table, rows)
        return set()

    def _judge_part(self, table: Counter[Row], count: int) -> None:
        """So many rows have been read and are in; without lanes, the first ones."""
        for digests in self._combinations():
            read = rows_of(self.feed, digests)
            if "--commit-every" in self.plan.options:
                if table == loaded(self.plan.mode, self.before, read[:count]):
                    return
            else:
                new = table - self.before
                good = {row for row in read if row[0] < BAD}
                bad = count - new.total()
                if not self.before - table and set(new) <= good and 0 <= bad <= self.plan.bad * self.plan.files:
                    return
        raise AssertionError(f"{count} rows are in, it says, and there are {(table - self.before).total()} new ones")

    def _combinations(self) -> Iterator[list[str]]:
        """What the files may have been when they were read."""
        others = [digest for digest in self.feed.versions if digest not in self.first]
        yield self.first
        for number in range(len(self.first)):
            for other in others:
                yield [*self.first[:number], other, *self.first[number + 1 :]]

    def see_nothing_left(self, *, was_cut_off: bool) -> None:
        """No session, lock, temporary table or file, nor a row of the ledger that says `running`."""
        # A pooler keeps its sessions; none of them is in a transaction of ours.
        where = "" if self.plan.way == "direct" else "AND xact_start IS NOT NULL"
        for leftover in (
            f"SELECT state || ': ' || query FROM pg_stat_activity WHERE application_name = 'harborctl' {where}",
            "SELECT objid FROM pg_locks WHERE locktype = 'advisory'",
            "SELECT relname FROM pg_class WHERE relpersistence = 't'",
        ):
            wait_until(lambda query=leftover: not self._query(query), leftover)  # type: ignore[misc]
        sources = {self.feed.path(number).name for number in range(self.plan.files)}
        left = {path.name for path in self.work.iterdir()} - sources
        rejects = {name for name in left if ".rejects." in name}
        assert left == rejects, left
        assert list(self.scratch.iterdir()) == []
        assert not rejects or self.plan.bad
        # A load that could not say any more how it ended is known to be lost.
        engine = ours(engine_of(self.server.url))
        statuses = {load["status"] for load in past_loads(engine, table=None, status=None, since=None, limit=9)}
        assert "running" not in statuses
        assert was_cut_off or "lost" not in statuses


def ended(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What the load has written until its end, which must come; pytest shows it."""
    try:
        out, err = process.communicate(timeout=90)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        out, err = process.communicate()
        raise AssertionError(err) from None
    sys.stdout.write(f"{process.returncode} {out} {err}\n")
    return out, err


def wait_until(true: Callable[[], bool], what: str = "") -> None:
    """Wait until it is true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


@pytest.mark.parametrize("seed", range(FIRST, FIRST + ROUNDS) if ROUNDS else DAILY)
def test_chaos(server: Server, small_disk: Path | None, tmp_path: Path, seed: int) -> None:
    plan = planned(seed)
    sys.stdout.write(f"{plan}\n")
    scene = Scene(plan, server, small_disk, tmp_path)
    scene.set_up()
    with scene.address() as (url, innocent_url):
        with Innocent(innocent_url, keeps_session=plan.way != "session") as innocent, ExitStack() as stack:
            process = scene.start(url, plan.limit)
            stack.callback(process.kill)
            scene.happen(process, stack)
            out, err = ended(process)
        # What the server could not be told any more, nobody can know.
        scene.see_nothing_left(was_cut_off=process.returncode < 0 or process.returncode == 3)
        versions = scene.judge(process, out, err)
        assert not innocent.strange
        assert innocent.errors == [] or plan.event in {"terminate", "restart", "crash"}
        kept = {number for (number,) in scene._query("SELECT id FROM others")}
        assert innocent.committed <= kept <= innocent.committed | innocent.unknown
        assert innocent.committed
    scene.restore()
    rerun(scene, versions)


def rerun(scene: Scene, versions: set[str]) -> None:
    """Once nothing goes wrong any more, what was begun is ended."""
    before = scene.rows()
    process = scene.start(scene.server.url)
    out, err = ended(process)
    summary = json.loads(out)
    mode = scene.plan.mode
    if summary["error"] and summary["error"]["code"] == "source_changed":
        # Parts of another version of the file are in.
        assert scene.plan.event in {"replace", "truncate"}
        assert scene.rows() == before != scene.before
        return
    assert process.returncode == (4 if scene.plan.bad else 0), (out, err)
    waiting = [digest for digest in scene.first if mode != "append" or digest not in versions]
    start = before if versions else scene.before
    assert scene.rows() == loaded(mode, start, rows_of(scene.feed, waiting)) if waiting else before
    scene.see_nothing_left(was_cut_off=True)
