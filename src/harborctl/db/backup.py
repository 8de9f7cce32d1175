"""Backups of the embedded database, how they come back, and its move to another major version of PostgreSQL.

PostgreSQL's own programs do the work. What is there stays until what takes its place is whole and proven: a backup is a
file that appears when it is done, a restored database is renamed when it is filled, and an upgraded cluster takes the
place of the old one when it was found to hold the same rows; the old one stays beside it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from harborctl.db.failures import translated
from harborctl.embedded.programs import find_programs
from harborctl.embedded.server import DATABASE, USER, Server
from harborctl.errors import StatementFailed, UsageError

if TYPE_CHECKING:
    from pathlib import Path

# Every cluster has it, and nobody else is connected to it.
MAINTENANCE = "template1"

# What pg_dumpall writes and a new cluster has already.
_CREATE_USER = f"CREATE ROLE {USER};".encode()


def back_up(server: Server, file: Path) -> None:
    """Write the database to `file`, in pg_dump's custom format. The server runs.

    Raises:
        StatementFailed: pg_dump failed; `file` is as it was.
    """
    if file.exists() and not file.is_file():  # a pipe or a device: it is written, not replaced
        _run(server, "pg_dump", "--format=custom", f"--file={file}", f"--dbname={_address(server, DATABASE)}")
        return
    file = file.resolve()
    unfinished = file.with_name(f".{file.name}.{os.getpid()}.unfinished")
    try:
        _run(server, "pg_dump", "--format=custom", f"--file={unfinished}", f"--dbname={_address(server, DATABASE)}")
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def require_backup(server: Server, file: Path) -> None:
    """Raises a UsageError if pg_restore cannot read `file`."""
    if not file.exists():
        raise UsageError(f"there is no file {file}", code="no_such_file")
    try:
        _run(server, "pg_restore", "--list", str(file))
    except StatementFailed as error:
        raise UsageError(
            f"{file} is no backup of harborctl db backup: {error.message}",
            code="bad_backup",
            hint="What is SQL goes in with: harborctl db psql -- -f FILE",
        ) from error


def restore(server: Server, file: Path) -> None:
    """Put a backup in the place of the database. The server runs, and nobody is connected.

    Raises:
        StatementFailed: pg_restore failed, or somebody is connected; the database is as it was.
    """
    filled, replaced = f"harborctl_restored_{os.getpid()}", f"harborctl_replaced_{os.getpid()}"
    with translated(), closing(psycopg.connect(_address(server, MAINTENANCE), autocommit=True)) as session:
        session.execute(_sql("CREATE DATABASE {} TEMPLATE template0", filled))
        try:
            options = ("--exit-on-error", "--single-transaction", f"--dbname={_address(server, filled)}")
            _run(server, "pg_restore", *options, str(file))
            with session.transaction():
                session.execute(_sql("ALTER DATABASE {} RENAME TO {}", DATABASE, replaced))
                session.execute(_sql("ALTER DATABASE {} RENAME TO {}", filled, DATABASE))
        except BaseException:  # Ctrl-C, too
            session.execute(_sql("DROP DATABASE IF EXISTS {}", filled))
            raise
        session.execute(_sql("DROP DATABASE {}", replaced))


def upgrade(server: Server, version: str) -> Path:
    """Move the cluster to another major version; where the old one is now. Belongs inside `server.exclusively()`.

    Roles and databases go over, with all rows; settings of postgresql.conf and ALTER SYSTEM do not.

    Raises:
        StatementFailed: the rows did not go over; the old cluster is in its place.
    """
    found = server.cluster_version()
    new = Server(server.home / "postgres.upgrading", version)
    with new.exclusively():
        new.destroy()  # what an upgrade that was killed has left
        server.start()
        new.start()
        try:
            with translated():
                _copy(server, new)
                _prove(server, new)
        finally:
            new.stop()
            server.stop()
        if server.upgraded.exists():
            shutil.rmtree(server.upgraded)
        new.data.rename(server.upgraded)
    old = server.home / f"postgres-{found}"
    number = 1
    while old.exists():
        number += 1
        old = server.home / f"postgres-{found}-{number}"
    server.data.rename(old)
    server.upgraded.rename(server.data)  # if we are ended before this, the next start does it
    if new.socket_directory != new.data:
        new.socket_directory.unlink(missing_ok=True)
    shutil.rmtree(new.home)
    return old


def _copy(old: Server, new: Server) -> None:
    """All that pg_dumpall would write, one database at a time, so that the first error ends it."""
    roles = _run(new, "pg_dumpall", "--globals-only", f"--dbname={_address(old, MAINTENANCE)}")
    lines = [line for line in roles.splitlines() if line != _CREATE_USER]
    _run(new, "psql", *_STRICT, f"--dbname={_address(new, MAINTENANCE)}", given=b"\n".join(lines))
    for database in _databases(old):
        # Made anew, so that it has its collation, its owner and its settings; MAINTENANCE is there and stays.
        how = [] if database == MAINTENANCE else ["--create", *(["--clean"] if database == DATABASE else [])]
        programs = find_programs(new.cluster_version())
        dump = [programs.path("pg_dump"), *how, f"--dbname={_address(old, database)}"]
        with subprocess.Popen(dump, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()) as dumping:
            _run(new, "psql", *_STRICT, f"--dbname={_address(new, MAINTENANCE)}", given=dumping.stdout)
            _, words = dumping.communicate()
        if dumping.returncode:
            raise _failed("pg_dump", words)


_STRICT = ("--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1")

_THINGS = """
    SELECT 'pg_class', relnamespace::regnamespace::text, relname::text, relkind::text FROM pg_class
    WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
  UNION ALL
    SELECT 'pg_constraint', connamespace::regnamespace::text, conname::text, contype::text FROM pg_constraint
    WHERE connamespace::regnamespace::text !~ '^(pg_|information_schema)' AND contype <> 'n'
  UNION ALL
    SELECT 'pg_proc', pronamespace::regnamespace::text, proname::text, prokind::text FROM pg_proc
    WHERE pronamespace::regnamespace::text !~ '^(pg_|information_schema)'
"""
_TABLES = """
    SELECT nspname, relname FROM pg_class JOIN pg_namespace AS namespace ON namespace.oid = relnamespace
    WHERE relkind IN ('r', 'm') AND nspname !~ '^(pg_|information_schema)' AND relispopulated
"""
_ROWS: LiteralString = "SELECT count(*), sum(hashtextextended((the_row.*)::text, 0)::numeric) FROM ONLY {} AS the_row"
_SEQUENCES = "SELECT 'sequence', schemaname::text, sequencename::text, last_value FROM pg_sequences"


def _prove(old: Server, new: Server) -> None:
    """Raises if the two do not hold the same things, and the same rows in every table."""
    if _databases(old) != _databases(new):
        raise StatementFailed("the upgraded server lacks a database", code="upgrade_failed")
    for database in _databases(old):
        before, after = _held(old, database), _held(new, database)
        if before != after:
            differ = min(str(thing[:3]) for thing in before ^ after)
            raise StatementFailed(
                f"the upgraded database {database} differs from the old one in {differ}",
                code="upgrade_failed",
                hint="The old one is in its place; harborctl db backup writes it to a file.",
            )


def _held(server: Server, database: str) -> set[tuple[Any, ...]]:
    """A database's things, where its sequences are, and each table's rows as a number and a sum of hashes."""
    with closing(psycopg.connect(_address(server, database), options="-csearch_path=")) as session:
        held: set[tuple[Any, ...]] = {*session.execute(_THINGS), *session.execute(_SEQUENCES)}
        for table in session.execute(_TABLES).fetchall():
            held.add(("rows", *table, session.execute(sql.SQL(_ROWS).format(sql.Identifier(*table))).fetchone()))
    return held


def _databases(server: Server) -> list[str]:
    with closing(psycopg.connect(_address(server, MAINTENANCE))) as session:
        names = session.execute("SELECT datname FROM pg_database WHERE datallowconn ORDER BY datname").fetchall()
    return [name for (name,) in names]


def _address(server: Server, database: str) -> str:
    return make_conninfo(**(server.parameters | {"dbname": database}))


def _sql(statement: LiteralString, *names: str) -> sql.Composed:
    return sql.SQL(statement).format(*map(sql.Identifier, names))


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


def _run(server: Server, name: str, *arguments: str, given: Any = None) -> bytes:
    """Run a program of the cluster's version as ourselves; what it writes. `given` is text, or a pipe to read."""
    program = find_programs(server.cluster_version()).path(name)
    source = {"input": given} if isinstance(given, bytes) else {"stdin": given or subprocess.DEVNULL}
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        [program, *arguments], capture_output=True, check=False, env=_environment(), **source
    )
    if done.returncode:
        raise _failed(name, done.stderr)
    return done.stdout


def _failed(name: str, words: bytes) -> StatementFailed:
    return StatementFailed(f"{name} failed: {' '.join(words.decode(errors='replace').split())}", code=f"{name}_failed")
