"""Backups of the embedded database, and its move to another major version: on real servers, and with faults."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from harborctl.db import backup
from harborctl.embedded.server import Server
from tests.conftest import Run
from tests.inprocess import Invoke, invoke

__all__ = ["invoke"]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home with a cluster of PostgreSQL 16 that has two databases."""
    place = Path(tempfile.mkdtemp(prefix="harborctl-backup-"))
    server = Server(place, "16")
    with server.exclusively():
        server.start()
        execute(
            server,
            "CREATE ROLE clerk LOGIN PASSWORD 'secret' IN ROLE pg_read_all_data",
            'CREATE DATABASE "Odd ""one"" ünï" OWNER clerk',
            "CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, f float8 CHECK (f > 0))",
            "INSERT INTO t (v, f) SELECT chr(200 + i) || E'\\n\\\\.', i / 7.0 FROM generate_series(1, 500) AS i",
            "CREATE MATERIALIZED VIEW m AS SELECT v FROM t",
            "CREATE MATERIALIZED VIEW unfilled AS SELECT v FROM t WITH NO DATA",
            "CREATE VIEW v AS SELECT upper(v) FROM t",
            "GRANT SELECT ON v TO clerk",
            "CREATE TABLE p (a int) PARTITION BY RANGE (a)",
            "CREATE TABLE p1 PARTITION OF p DEFAULT",
            "INSERT INTO p VALUES (1), (2)",
        )
        execute(
            server, "CREATE TABLE odd (j jsonb)", """INSERT INTO odd VALUES ('{"ä": 1}')""", database='Odd "one" ünï'
        )
        server.stop()
    yield place
    for cluster in (server, Server(place / "postgres.upgrading")):
        with contextlib.suppress(FileNotFoundError):
            cluster.stop()
    shutil.rmtree(place)


def execute(server: Server, *statements: str, database: str = "postgres") -> list[tuple[object, ...]]:
    """Carry them out; the rows of the last one."""
    with psycopg.connect(make_conninfo(**(server.parameters | {"dbname": database})), autocommit=True) as session:
        for statement in statements:
            cursor = session.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_a_backup_comes_back(home: Path, invoke: Invoke, tmp_path: Path) -> None:
    env = {"HARBORCTL_HOME": str(home)}
    server, file = Server(home), tmp_path / "ä b.backup"
    run = invoke("db", "backup", file, env=env)
    assert (run.code, run.stdout, run.stderr) == (0, "", f"The database is in {file}.\n")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file.name]
    run = invoke("db", "backup", file, env=env)
    assert (run.code, run.stderr) == (2, f"error: {file} is there already\nhint: Add --force to overwrite it.\n")
    assert invoke("db", "backup", file, "--force", "--quiet", env=env) == Run(0, "", "")
    with server.leased():
        held = backup._held(server, "postgres")
        assert backup._held(server, "postgres") == held
        before = held
        for change in (
            "UPDATE t SET v = 'x' WHERE id = 7",
            "DELETE FROM t WHERE id = 8",
            "SELECT nextval('t_id_seq')",
            "ALTER TABLE t DROP CONSTRAINT t_f_check",
            "DROP VIEW v",
            "DROP TABLE t CASCADE",
        ):
            execute(server, change)
            after = backup._held(server, "postgres")
            assert after != before
            before = after
    run = invoke("db", "restore", file, env=env)
    assert (run.code, run.stdout) == (2, "")
    assert run.stderr.startswith(f"error: this replaces everything in {server.data}, and nobody is there to ask")
    # What cannot be restored changes nothing.
    broken = tmp_path / "broken"
    broken.write_bytes(file.read_bytes()[:-200])
    run = invoke("db", "restore", broken, "--yes", env=env)
    assert (run.code, run.stdout) == (1, "")
    assert run.stderr.startswith("error: pg_restore failed: ")
    assert execute_leased(server, "SELECT count(*) FROM pg_database") == [(4,)]
    assert execute_leased(server, "SELECT count(*) FROM p") == [(2,)]
    run = invoke("db", "restore", file, "--yes", env=env)
    assert (run.code, run.stdout, run.stderr) == (0, "", f"The database is what it was in {file}.\n")
    with server.leased():
        assert backup._held(server, "postgres") == held
    assert execute_leased(server, "SELECT count(*) FROM pg_database") == [(4,)]
    assert server.state().status == "stopped"


def test_an_upgrade_takes_everything_along(home: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"HARBORCTL_HOME": str(home), "PGSERVER_POSTGRES_VERSION": "18"}
    execute_leased(Server(home), "ALTER DATABASE postgres SET work_mem = '7MB'")
    # A fault on the way: nothing has happened.
    with monkeypatch.context() as fault:
        fault.setattr(backup, "_copy", lambda _old, _new: None)
        run = invoke("db", "upgrade", env=env)
    assert (run.code, run.stdout) == (1, "")
    assert run.stderr.startswith("error: the upgraded server lacks a database")
    assert Server(home).state().version == "16"
    run = invoke("db", "upgrade", env=env)
    assert (run.code, run.stderr) == (
        0,
        f"The old data of PostgreSQL 16 is in {home}/postgres-16: delete it when you no longer want it.\n",
    )
    assert "version: 18" in run.stdout
    assert sorted(path.name for path in home.iterdir()) == ["lease.lock", "postgres", "postgres-16", "start.lock"]
    assert invoke("db", "upgrade", env=env).code == 0  # nothing is left to do
    server = Server(home)
    with server.leased():
        assert execute(server, "SELECT count(*), sum(f) FROM t") == [(500, sum(i / 7.0 for i in range(1, 501)))]
        assert execute(server, "INSERT INTO t (v, f) VALUES ('', 1) RETURNING id") == [(501,)]
        assert execute(server, "SHOW work_mem") == [("7MB",)]
        assert execute(server, "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'clerk'") == [(True,)]
        assert execute(server, "SET ROLE clerk", "SELECT count(*) FROM v") == [(501,)]
        assert execute(server, "SELECT count(*) FROM odd", database='Odd "one" ünï') == [(1,)]
        assert str(execute(server, "SHOW server_version")[0][0]).startswith("18.")
    run = invoke("db", "upgrade", env=env | {"PGSERVER_POSTGRES_VERSION": "16"})
    assert (run.code, run.stderr) == (
        2,
        "error: the embedded database is of PostgreSQL 18, and there is no way back to 16\n",
    )
    # Ended between its two last steps, an upgrade is finished by the next start.
    server.data.rename(server.upgraded)
    assert execute_leased(server, "SELECT count(*) FROM t") == [(501,)]
    assert invoke("db", "destroy", "--yes", env=env).code == 0
    assert sorted(path.name for path in home.iterdir()) == ["lease.lock", "start.lock"]


def execute_leased(server: Server, statement: str) -> list[tuple[object, ...]]:
    with server.leased():
        return execute(server, statement)


@pytest.mark.parametrize(("content", "message"), [(None, "there is no file "), ("SELECT 1;", " is no backup of ")])
def test_what_is_no_backup(invoke: Invoke, tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "file"
    if content:
        file.write_text(content)
    run = invoke("db", "restore", file, "--yes")
    assert (run.code, run.stdout) == (2, "")
    assert message in run.stderr


def test_a_backup_of_nothing(invoke: Invoke, tmp_path: Path) -> None:
    run = invoke("db", "backup", tmp_path / "x")
    assert (run.code, run.stdout) == (2, "")
    assert run.stderr == f"error: there is no embedded database in {tmp_path}/home yet\n"
