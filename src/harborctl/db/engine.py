"""Opens the database that a command was pointed at: one engine for the whole process, disposed of at the end.

What every session of ours has in common is set here: its name, its patience, its encoding, and who hears of slow
statements. This module never runs a statement of a command.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy
from psycopg.conninfo import make_conninfo
from sqlalchemy import event, func

from harborctl.db import pool, url
from harborctl.db.failures import refusal_state, refused, translated
from harborctl.db.qualified import QualifiedCompiler
from harborctl.db.search_path import begin_qualified

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from harborctl.model import ConnectionOptions

# Seconds; psycopg would wait 130.
CONNECT_TIMEOUT = 10
# PostgreSQL keeps timeouts in milliseconds, as an int.
LONGEST_TIMEOUT = 2**31 - 1
# Milliseconds; one system call each.
CLIENT_CHECK = "2000"
# In the words of version(): where the server can see that a socket was closed.
CHECKS_CLIENTS = ("linux", "darwin", "freebsd", "netbsd", "openbsd")
# Characters of a slow statement that are logged: enough to know it by.
LOGGED_STATEMENT = 500

logger = logging.getLogger("harborctl")


@dataclass(frozen=True, slots=True)
class Database:
    """An open database. `url` names it to people: the password is left out. With `options` another process opens it."""

    engine: sqlalchemy.Engine
    url: str
    embedded: bool
    options: ConnectionOptions | None = field(default=None, repr=False)


@contextmanager
def open_database(options: ConnectionOptions, *, migrate_embedded: bool = True) -> Iterator[Database]:
    """The database that `options` and the environment name, in the order of CONTRACT.md.

    Connects when it is first used. Errors of the database that leave the block are translated on the way.
    The embedded server runs as long as the block, and its database is migrated first unless `migrate_embedded` is off.

    Raises:
        UsageError: a bad URL or configuration; no database named and the embedded one not installed.
        ConnectionFailed: the embedded server does not start.
    """
    address = url.resolve(options)
    if address:
        with _engine(address, options) as engine:
            yield Database(engine, address.display, embedded=False, options=options)
        return
    with open_embedded(options, migrate=migrate_embedded) as database:
        yield database


@contextmanager
def open_embedded(options: ConnectionOptions, *, migrate: bool = True) -> Iterator[Database]:
    """The embedded database, whatever else is named. As `open_database`."""
    from harborctl.db.migrations import pending, upgrade
    from harborctl.embedded.server import Server

    server = Server()
    address = url.Address(server.parameters, server.url)
    with server.leased(), _engine(address, options, server.ensure_running) as engine:
        if migrate and pending(engine):
            upgrade(engine)
        yield Database(engine, server.url, embedded=True, options=options)


@contextmanager
def _engine(
    address: url.Address, options: ConnectionOptions, ensure_running: Callable[[], None] | None = None
) -> Iterator[sqlalchemy.Engine]:
    parameters: dict[str, Any] = {
        **address.parameters,
        # PGAPPNAME and an application_name in the URL go first.
        "fallback_application_name": "harborctl",
        # COPY's bytes and libpq's messages are UTF-8, whatever PGCLIENTENCODING says.
        "client_encoding": "UTF8",
    }
    if not os.environ.get("PGCONNECT_TIMEOUT"):
        parameters.setdefault("connect_timeout", CONNECT_TIMEOUT)
    # A pooler gives the next transaction to another session, which does not know this one's prepared statements.
    session_settings = {"prepare_threshold": None} if address.pgbouncer else {}
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://",
        connect_args=parameters | session_settings,
        pool_pre_ping=True,
        **pool.settings(options.pool, address.pool),
        hide_parameters=True,  # a row is not for logs and tracebacks
        use_native_hstore=False,  # would look the type up in each new session
    )
    _explain_refusals(engine, parameters, ensure_running)
    set_up_transactions(engine, options)
    _log_slow_statements(engine, options.log_slow)
    try:
        with translated():
            yield engine
    finally:
        engine.dispose()


def _explain_refusals(
    engine: sqlalchemy.Engine, parameters: dict[str, Any], ensure_running: Callable[[], None] | None
) -> None:
    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, _record: Any, arguments: list[Any], settings: dict[str, Any]) -> Any:
        if ensure_running:
            ensure_running()
        try:
            return dialect.connect(*arguments, **settings)
        except psycopg.errors.ConnectionTimeout as error:
            raise refused(error) from error
        except psycopg.OperationalError as error:
            # Without `pgconn` no server was reached.
            state = refusal_state(make_conninfo("", **parameters)) if error.pgconn else None
            raise refused(error, state) from error


def set_up_transactions(engine: sqlalchemy.Engine, options: ConnectionOptions) -> None:
    """Let each transaction begin with an empty search path and the timeouts of `options`, and its statements be
    qualified.

    Per transaction, not per session: behind a pooler the session is not ours, and the next user would inherit it.
    """
    dialect: Any = engine.dialect
    dialect.statement_compiler = QualifiedCompiler
    dialect._get_server_version_info = _server_version
    # What the catalog says of keys is compared with what users write.
    quoting = func.set_config("quote_all_identifiers", "off", True)
    settings = [*timeouts(options), _look_for_client(), quoting]

    @event.listens_for(engine, "begin")
    def begin(connection: sqlalchemy.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        # What users write is standard SQL, also where a database or a role has it otherwise. The server has told us.
        if driver.info.parameter_status("standard_conforming_strings") == "off":
            connection.exec_driver_sql("SET LOCAL standard_conforming_strings = on")
        begin_qualified(connection, settings)


def _server_version(connection: sqlalchemy.Connection) -> tuple[int, ...]:
    """The version as the server has told it while connecting. SQLAlchemy would ask for `version()`, and fail where the
    answer is not PostgreSQL's, before anybody could say so."""
    driver: Any = connection.connection.driver_connection
    number: int = driver.info.server_version
    return number // 10000, number % 10000


def _look_for_client() -> sqlalchemy.ColumnElement[Any]:
    """What lets the server look, while a statement runs, whether its client is still there, and end it if not. Where it
    cannot, setting it is an error; and what an administrator has set stays.
    https://www.postgresql.org/docs/current/runtime-config-connection.html
    """
    name = "client_connection_check_interval"
    able = sqlalchemy.or_(*(func.strpos(func.version(), platform) > 0 for platform in CHECKS_CLIENTS))
    is_off = func.current_setting(name, True) == "0"
    return sqlalchemy.case((sqlalchemy.and_(able, is_off), func.set_config(name, CLIENT_CHECK, True)))


def timeouts(options: ConnectionOptions, *, for_session: bool = False) -> list[sqlalchemy.ColumnElement[str]]:
    """What sets the timeouts of `options`, in a transaction or for what is outside of any."""
    wanted = {"statement_timeout": options.statement_timeout, "lock_timeout": options.lock_timeout}
    return [
        func.set_config(name, milliseconds(value), not for_session)
        for name, value in wanted.items()
        if value is not None
    ]


def milliseconds(seconds: float) -> str:
    """A timeout as PostgreSQL's settings have it."""
    # 0 means no limit, so that the shortest limit must not round to it.
    return str(min(max(round(seconds * 1000), 1), LONGEST_TIMEOUT) if seconds else 0)


def _log_slow_statements(engine: sqlalchemy.Engine, limit: float) -> None:
    started = "harborctl_statement_started"

    @event.listens_for(engine, "before_cursor_execute")
    def before(connection: sqlalchemy.Connection, *_: Any) -> None:
        connection.info[started] = time.perf_counter()

    @event.listens_for(engine, "after_cursor_execute")
    def after(connection: sqlalchemy.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        seconds = time.perf_counter() - connection.info[started]
        if seconds >= limit:
            logger.warning("slow statement, %.1f s: %s", seconds, " ".join(statement.split())[:LOGGED_STATEMENT])
