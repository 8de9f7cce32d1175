"""The search path of a transaction: empty for our own SQL, the user's for what is the user's.

As pg_dump does, and for its reason: a name that is not qualified means what its owner meant, not what somebody has put
in front of it. The user's path is read when a transaction begins. It finds the tables that people name, and is in force
where SQL of theirs runs: reports, checks, conditions, and whatever a table does by itself when it is written to
(triggers, defaults, constraints).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from psycopg.pq import TransactionStatus
from sqlalchemy import Text, func, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.dialects.postgresql import ARRAY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Connection

_PATH = "harborctl_search_path"
_IS_USERS = "harborctl_has_users_search_path"
_SEEN = func.current_setting("search_path"), sql_cast(func.current_schemas(True), ARRAY(Text))


@dataclass(frozen=True, slots=True)
class SearchPath:
    """A search path as a setting, and the schemas that it leads to, in order: temporary and system ones, too."""

    setting: str
    schemas: tuple[str, ...]


def begin_qualified(connection: Connection, settings: Sequence[ColumnElement[str]]) -> None:
    """At the begin of a transaction: remember the user's path, and leave it; make these `settings` besides."""
    # The items of a SELECT list are evaluated from left to right.
    row = connection.execute(select(*_SEEN, func.set_config("search_path", "", True), *settings)).one()
    connection.info[_PATH] = SearchPath(row[0], tuple(row[1]))
    connection.info[_IS_USERS] = False


def users_path(connection: Connection) -> SearchPath:
    """The path that the user had when this transaction began."""
    found: SearchPath | None = connection.info.get(_PATH)
    if found is None:
        setting, schemas = connection.execute(select(*_SEEN)).one()
        found = SearchPath(setting, tuple(schemas))
    return found


def take_users_path(connection: Connection) -> None:
    """From here on the user's path is in force. Of an engine that is not ours it always is."""
    if _is_users(connection) is False:
        connection.execute(select(func.set_config("search_path", users_path(connection).setting, True)))
        connection.info[_IS_USERS] = True


def leave_users_path(connection: Connection) -> None:
    """From here on the path is empty, if the engine is ours."""
    if _is_users(connection):
        connection.execute(select(func.set_config("search_path", "", True)))
        connection.info[_IS_USERS] = False


@contextmanager
def on_users_path(connection: Connection) -> Iterator[None]:
    """The user's path is in force inside this block."""
    with _switched(connection, take_users_path, leave_users_path):
        yield


@contextmanager
def on_empty_path(connection: Connection) -> Iterator[None]:
    """The path is empty inside this block."""
    with _switched(connection, leave_users_path, take_users_path):
        yield


def _is_users(connection: Connection) -> bool | None:
    return cast("bool | None", connection.info.get(_IS_USERS))


@contextmanager
def _switched(
    connection: Connection, there: Callable[[Connection], None], back: Callable[[Connection], None]
) -> Iterator[None]:
    before = _is_users(connection)
    there(connection)
    is_changed = _is_users(connection) is not before
    try:
        yield
    finally:
        # Of one that was lost there is no driver's connection to be had, and no path to be set.
        driver = None if connection.invalidated else connection.connection.driver_connection
        # In a transaction that has failed nothing can be set any more: a rollback gives back what was before.
        if is_changed and driver is not None and driver.info.transaction_status == TransactionStatus.INTRANS:
            back(connection)
        if is_changed and driver is not None:
            connection.info[_IS_USERS] = before
