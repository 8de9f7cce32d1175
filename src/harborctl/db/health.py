"""Looks at a database the way a load will meet it, and says what is in order, what slows it down, and what stops it.

Each check is a function that asks for one thing; one that fails says so in its line, and the others go on. Only reads:
catalogs, settings and statistics.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import time
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from harborctl.db import rights
from harborctl.db.catalog import find_relation
from harborctl.db.failures import translated
from harborctl.db.migrations import current, revisions
from harborctl.db.product import EXTENSIONS, product_of
from harborctl.db.search_path import users_path
from harborctl.db.sessions import is_pooled, sessions_at_once
from harborctl.db.storage import is_worker
from harborctl.db.tables import HARBOR_SCHEMA, LEDGER_SCHEMA
from harborctl.errors import AccessDenied, ConnectionFailed, HarborctlError, TargetError, UsageError
from harborctl.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection

    from harborctl.db.engine import Database

OLDEST, NEWEST = 15, 18
# Seconds for one way there and back, from which on a load notices: the values writer makes one for every batch.
SLOW_ROUND_TRIP = 0.05
# Seconds from which on a transaction holds up vacuum, and a load's locks, for long.
LONG_TRANSACTION = 300
LITTLE_WAL = 2 * 1024**3
LITTLE_MEMORY = 64 * 1024**2
LITTLE_DISK = 5 * 1024**3
NO_DISK = 512 * 1024**2


class State(StrEnum):
    """How a check came out, the best first."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the examination. `hint` says what to do about it."""

    name: str
    state: State
    message: str
    hint: str | None = None


def examine(database: Database, table: str | None = None) -> Iterator[Check]:
    """Every check, one after the other; the last one is about `table`, if it is given.

    Raises:
        ConnectionFailed: there is no connection, or it was lost.
    """
    with translated(), database.engine.connect() as connection:
        connection.execution_options(postgresql_readonly=True)
        checks = _CHECKS | ({"target": partial(_target, table=table)} if table else {})
        for name, check in checks.items():
            try:
                # Each check in a transaction of its own, so that one that is refused does not take the others with it.
                with translated(), connection.begin():
                    for state, message, hint in check(connection, database):
                        yield Check(name, state, message, hint)
            except ConnectionFailed:
                raise
            except HarborctlError as error:
                yield Check(name, State.WARN, f"cannot be looked at: {error.message}", error.hint)


Found = tuple[State, str, str | None]


def _ok(message: str) -> Found:
    return State.OK, message, None


def _warn(message: str, hint: str) -> Found:
    return State.WARN, message, hint


def _fail(message: str, hint: str) -> Found:
    return State.FAIL, message, hint


def _connection(connection: Connection, database: Database) -> Iterator[Found]:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        connection.execute(text("SELECT 1")).close()
        times.append(time.perf_counter() - start)
    latency = statistics.median(times)
    user = connection.execute(text("SELECT current_user")).scalar_one()
    message = f"{database.url} as {user}, {latency * 1000:.1f} ms there and back"
    if latency > SLOW_ROUND_TRIP:
        yield _warn(message, "Run harborctl nearer to the server, and load with --writer copy.")
    else:
        yield _ok(message)


def _engine(connection: Connection, _: Database) -> Iterator[Found]:
    answer: str = connection.execute(text("SELECT pg_catalog.version()")).scalar_one()
    product = product_of(answer)
    if not product.is_postgresql:
        yield _warn(
            f"{product}, which harborctl has never been tested with",
            f"It is tested with only PostgreSQL {OLDEST} to {NEWEST}: try your loads on copies of their tables, and"
            " compare the rows.",
        )
        return
    found = connection.execute(
        text("SELECT extname, extversion FROM pg_catalog.pg_extension WHERE extname = ANY(:names) ORDER BY extname"),
        {"names": list(EXTENSIONS)},
    )
    versions: dict[str, str] = {row.extname: row.extversion for row in found}
    named = str(product_of(answer, versions))
    if is_worker(connection):
        yield _fail(
            f"{named}; this server is a worker of the cluster, whose locks and ledger know nothing of other loads",
            "Name the coordinator of the cluster.",
        )
        return
    if "citus" in versions:
        named += "; this server is the coordinator; tables of Citus cannot be sampled (count --sample)"
    if "timescaledb" in versions:
        named += "; hypertables with compressed chunks cannot be sampled (count --sample)"
    yield _ok(named)


def _versions(connection: Connection, _: Database) -> Iterator[Found]:
    number = int(_setting(connection, "server_version_num") or 0)
    ours = f"harborctl {__version__}, Python {platform.python_version()}, psycopg {version('psycopg')}"
    message = f"PostgreSQL {_setting(connection, 'server_version')}; {ours}"
    major = number // 10000
    if major < OLDEST:
        yield _fail(message, f"harborctl needs PostgreSQL {OLDEST} or later.")
    elif major > NEWEST:
        yield _warn(message, f"harborctl is tested up to PostgreSQL {NEWEST}; look for a newer harborctl.")
    else:
        yield _ok(message)


def _encryption(connection: Connection, _: Database) -> Iterator[Found]:
    session = _session(connection)
    host = session.info.host
    if session.pgconn.ssl_in_use:
        protocol = session.pgconn.ssl_attribute(b"protocol") if hasattr(session.pgconn, "ssl_attribute") else None
        yield _ok(f"TLS{f', {protocol.decode()}' if protocol else ''}")
    elif host.startswith(("/", "@")):
        yield _ok("none needed on a local socket")
    elif host in ("localhost", "127.0.0.1", "::1"):
        yield _ok("none, within this machine")
    else:
        yield _warn("none: passwords and rows can be read on the way", "Add ?sslmode=verify-full to the URL.")


def _pooler(connection: Connection, _: Database) -> Iterator[Found]:
    session = _session(connection)
    direct = session.info.backend_pid == connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    told = session.prepare_threshold is None
    if direct and told:
        yield _ok("none seen, though one was announced; statements are not prepared")
    elif direct:
        yield _ok("none between here and the server")
    elif told:
        yield _ok("there is one, and statements are not prepared")
    else:
        yield _warn(
            "there is one, which may hand prepared statements to a session that does not know them",
            "Add ?pgbouncer=true to the URL, or set HARBORCTL_PGBOUNCER=1.",
        )


def _writable(connection: Connection, _: Database) -> Iterator[Found]:
    if connection.execute(text("SELECT pg_is_in_recovery()")).scalar_one():
        yield _fail("this server is a standby, which takes no writes", "Name the primary, to load.")
    elif connection.execute(text("SELECT current_setting('default_transaction_read_only')::bool")).scalar_one():
        yield _warn(
            "transactions are read-only unless they ask otherwise",
            "ALTER ROLE … SET default_transaction_read_only = off, for the user that loads.",
        )
    else:
        yield _ok("the server takes writes")


_RIGHTS = text("""
    SELECT namespace.nspname AS schema, has_schema_privilege(namespace.oid, 'USAGE') AS usable,
           has_schema_privilege(namespace.oid, 'CREATE') AS creatable,
           count(class.oid) AS tables,
           count(*) FILTER (WHERE has_any_column_privilege(class.oid, 'SELECT')) AS readable,
           count(*) FILTER (WHERE has_any_column_privilege(class.oid, 'INSERT')) AS insertable,
           count(*) FILTER (WHERE has_any_column_privilege(class.oid, 'UPDATE')) AS updatable
    FROM pg_namespace AS namespace
    LEFT JOIN pg_class AS class ON class.relnamespace = namespace.oid AND class.relkind IN ('r', 'p')
    WHERE namespace.nspname NOT IN ('pg_catalog', 'information_schema') AND namespace.nspname NOT LIKE 'pg\\_t%'
      AND (class.oid IS NOT NULL OR namespace.nspname = ANY(CAST(:path AS text[])))
    GROUP BY namespace.oid, namespace.nspname
    ORDER BY namespace.nspname
""")


def _rights(connection: Connection, _: Database) -> Iterator[Found]:
    user = connection.execute(text("SELECT current_user")).scalar_one()
    if grant := rights.missing_temporary(connection):
        yield _fail(f"{user} may not make temporary tables, which upserts are staged in", f"{grant}, as its owner.")
    found = connection.execute(_RIGHTS, {"path": list(users_path(connection).schemas)}).all()
    others = [row for row in found if row.schema != LEDGER_SCHEMA]
    # Where one table takes rows, or a new one could be made, a load can be meant for it; else every load fails.
    closed = _warn if any(row.usable and (row.insertable or row.creatable) for row in others) else _fail
    for row in found:
        numbers = [(row.readable, "read"), (row.insertable, "insert into"), (row.updatable, "update")]
        done = ", ".join(f"{verb} {number}" for number, verb in numbers)
        message = f"{row.schema}: {row.tables} {'table' if row.tables == 1 else 'tables'}" + (
            f"; {user} may {done}" if row.tables else ""
        )
        if row.schema == LEDGER_SCHEMA:
            lacking = rights.missing(connection)
            hint = f"{'; '.join(lacking)}, as its owner. Or load with --no-ledger."
            yield _fail(message if row.usable else f"{row.schema}: closed to {user}", hint) if lacking else _ok(message)
        elif not row.usable:
            yield closed(
                f"{row.schema}: closed to {user}",
                f"{rights.grant_usage(row.schema, user)}, as its owner, to load there.",
            )
        elif row.insertable < row.tables and not row.insertable:
            yield closed(message, f"{rights.grant_all(row.schema, user)}, as its owner, to load there.")
        else:
            yield _ok(message)


def _migrations(connection: Connection, _: Database) -> Iterator[Found]:
    try:
        states = current(connection)
    except AccessDenied:  # a load does without
        raise
    except UsageError as error:  # a load asks the same
        yield _fail(error.message, error.hint or "")
        return
    for state in states:
        if state.revision is None and state.branch == "ledger":
            yield _fail(
                "this database has no ledger yet", "`harborctl migrate up ledger` makes it; or load with --no-ledger."
            )
        elif not state.pending:
            yield _ok(f"{state.branch} is at {state.revision}")
        elif state.revision is None and state.branch == HARBOR_SCHEMA:
            yield _ok("harbor is not here; only the samples need it")
        else:
            missing = f"{len(state.pending)} of {len(revisions()[state.branch])} migrations"
            yield _warn(f"{state.branch} lacks {missing}", f"`harborctl migrate up {state.branch}` applies them.")


def _settings(connection: Connection, _: Database) -> Iterator[Found]:
    rows = connection.execute(
        text("""
            SELECT name, current_setting(name) AS shown,
                   CASE WHEN unit IS NULL THEN NULL
                        WHEN unit = 'MB' THEN setting::bigint * 1024 * 1024 ELSE setting::bigint * 1024 END AS bytes
            FROM pg_settings
            WHERE name IN ('max_wal_size', 'maintenance_work_mem', 'synchronous_commit', 'synchronous_standby_names',
                           'fsync', 'full_page_writes', 'autovacuum')
        """)
    )
    found = {row.name: row for row in rows}
    complaints = [
        *_size_complaint(
            found["max_wal_size"], LITTLE_WAL, "a checkpoint interrupts large loads often", "max_wal_size = '4GB'"
        ),
        *_size_complaint(
            found["maintenance_work_mem"], LITTLE_MEMORY, "indexes are built slowly", "maintenance_work_mem = '512MB'"
        ),
    ]
    waits = found["synchronous_commit"].shown
    if waits == "remote_apply" or (waits in ("on", "remote_write") and found["synchronous_standby_names"].shown):
        complaints.append(
            _warn(
                f"synchronous_commit is {waits}: every commit waits for a standby",
                "It costs once a load; with --commit-every once a chunk. SET synchronous_commit = local, for the user"
                " that loads, if that is too long.",
            )
        )
    complaints += [
        _warn(f"{name} is off: a crash of the machine can destroy the database", f"Set {name} = on.")
        for name in ("fsync", "full_page_writes")
        if found[name].shown == "off"
    ]
    if found["autovacuum"].shown == "off":
        complaints.append(
            _warn("autovacuum is off: tables bloat and estimates grow old", "Set autovacuum = on, or VACUUM ANALYZE.")
        )
    yield from complaints
    if not complaints:
        yield _ok(
            f"max_wal_size {found['max_wal_size'].shown}, maintenance_work_mem {found['maintenance_work_mem'].shown},"
            f" synchronous_commit {waits}"
        )


def _size_complaint(setting: Any, least: int, so: str, better: str) -> Iterator[Found]:
    if setting.bytes < least:
        yield _warn(f"{setting.name} is {setting.shown}: {so}", f"Set {better} on the server, if it has the room.")


_TRANSACTIONS = text("""
    SELECT pid, coalesce(usename, '?') AS name, state,
           extract(epoch FROM clock_timestamp() - xact_start)::bigint AS seconds
    FROM pg_stat_activity
    WHERE xact_start < clock_timestamp() - make_interval(secs => :seconds) AND pid <> pg_backend_pid()
      AND backend_type = 'client backend'
    ORDER BY xact_start LIMIT 5
""")
_PREPARED = text("""
    SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::bigint AS seconds FROM pg_prepared_xacts
    WHERE database = current_database() AND prepared < clock_timestamp() - make_interval(secs => :seconds)
    ORDER BY prepared LIMIT 5
""")
_SEES_ALL = text("SELECT pg_has_role('pg_read_all_stats', 'USAGE')")


def _transactions(connection: Connection, _: Database) -> Iterator[Found]:
    long = {"seconds": LONG_TRANSACTION}
    some = False
    for row in connection.execute(_TRANSACTIONS, long):
        some = True
        yield _warn(
            f"process {row.pid} of {row.name} has had a transaction open for {_ago(row.seconds)} ({row.state})",
            f"It holds locks and holds up vacuum; SELECT pg_terminate_backend({row.pid}) ends it.",
        )
    for row in connection.execute(_PREPARED, long):
        some = True
        yield _warn(
            f"the prepared transaction {row.gid} has been waiting for {_ago(row.seconds)}",
            "COMMIT PREPARED or ROLLBACK PREPARED ends it.",
        )
    if not some:
        own = "" if connection.execute(_SEES_ALL).scalar_one() else " of this user; others' are not visible to it"
        yield _ok(f"none longer than {_ago(LONG_TRANSACTION)}{own}")


def _ago(seconds: int) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} seconds"


_SESSIONS = text("""
    WITH sessions AS (SELECT usename, datname FROM pg_stat_activity WHERE backend_type = 'client backend')
    SELECT (SELECT count(*) FROM sessions) AS used,
           current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int AS most,
           CASE WHEN rolconnlimit >= 0 AND NOT rolsuper THEN rolconnlimit END AS role_most,
           (SELECT count(*) FROM sessions WHERE usename = current_user) AS role_used,
           CASE WHEN datconnlimit >= 0 AND NOT rolsuper THEN datconnlimit END AS database_most,
           (SELECT count(*) FROM sessions WHERE datname = current_database()) AS database_used,
           current_user AS role_name, current_database() AS database_name
    FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()
""")
# README.md says the same.
_NEEDED = "a load needs 1, with --commit-every 2, with --jobs N one more than N; a job no more than its loads{}"
# Beside the one that asks, which --commit-every needs.
_MORE = 1


def _sessions(connection: Connection, database: Database) -> Iterator[Found]:
    row = connection.execute(_SESSIONS).one()
    pooled = is_pooled(connection)
    needed = _NEEDED.format(", and one besides behind this pooler" if pooled else "")
    some = False
    if row.used >= 0.9 * row.most:
        some = True
        yield _warn(
            f"{row.used} of {row.most} are open; {needed}",
            "End what is idle, put a pooler in front, or raise max_connections.",
        )
    for kind, name, most, used in (
        ("ROLE", row.role_name, row.role_most, row.role_used),
        ("DATABASE", row.database_name, row.database_most, row.database_used),
    ):
        if most is not None and most - used < _MORE:
            some = True
            yield _warn(
                f"{kind.lower()} {name} may have {most}, and {used} are open; {needed}",
                f"{rights.raise_limit(kind, name, used + 2)}, or more, as a superuser.",
            )
    if pooled and not some and sessions_at_once(database.engine, _MORE) < _MORE:
        some = True
        yield _warn(f"the pooler gives no second one at once; {needed}", "Raise its default_pool_size.")
    if not some:
        yield _ok(f"{row.used} of {row.most} are open; {needed}")


def _disk(connection: Connection, database: Database) -> Iterator[Found]:
    host = _session(connection).info.host
    directory = host if database.embedded else None  # its socket lies there
    if host.startswith("/") and not database.embedded:
        sees = (
            "SELECT CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting('data_directory') END"
        )
        directory = connection.execute(text(sees)).scalar_one()
    try:
        usage = shutil.disk_usage(directory) if directory and _is_there(directory) else None
    except OSError:
        usage = None
    if usage is None:
        yield _ok("the server's disk is not visible from here")
        return
    message = f"{usage.free / 1024**3:.1f} GB left for {directory}"
    if usage.free < NO_DISK:
        yield _fail(message, "Make room before you load.")
    elif usage.free < LITTLE_DISK:
        yield _warn(message, "A load needs about three times the size of its file, for rows, indexes and WAL.")
    else:
        yield _ok(message)


def _is_there(directory: str) -> bool:
    # A server that was started in its data directory may call it `.` or /proc/self/cwd, which is another for us.
    return Path(directory).is_absolute() and not directory.startswith("/proc/") and Path(directory).exists()


def _target(connection: Connection, _: Database, *, table: str) -> Iterator[Found]:
    try:
        found = find_relation(connection, table)
    except TargetError as error:
        yield _fail(error.message, error.hint or "")
        return
    name = f"{found.schema}.{found.name}"
    user = connection.execute(text("SELECT current_user")).scalar_one()
    on_rows = rights.on_rows(connection, found.oid)
    if on_rows.lacking:
        state = _fail if any(right.startswith("INSERT") for right in on_rows.lacking) else _warn
        grant = rights.grant(found.schema, found.name, on_rows.lacking, user)
        yield state(f"{name}: {user} may not {', '.join(on_rows.lacking)}", f"{grant}, as its owner.")
    if on_rows.held and (not on_rows.lacking or any("(" in right for right in on_rows.held)):
        yield _ok(f"{name}: {user} may {', '.join(on_rows.held)}")


_CHECKS: dict[str, Callable[[Connection, Database], Iterator[Found]]] = {
    "connection": _connection,
    "engine": _engine,
    "version": _versions,
    "encryption": _encryption,
    "pooler": _pooler,
    "writes": _writable,
    "rights": _rights,
    "migrations": _migrations,
    "settings": _settings,
    "transactions": _transactions,
    "sessions": _sessions,
    "disk": _disk,
}


def _session(connection: Connection) -> Any:
    """psycopg's connection."""
    return connection.connection.driver_connection


def _setting(connection: Connection, name: str) -> str | None:
    value: str | None = connection.execute(text("SELECT current_setting(:name, true)"), {"name": name}).scalar_one()
    return value
