"""Makes a table. By the driver itself: a percent sign in a name would be doubled once too often through SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql
from sqlalchemy import text

from harborctl.db.catalog import split_name
from harborctl.db.failures import translated
from harborctl.db.search_path import on_empty_path, on_users_path, users_path
from harborctl.errors import AccessDenied, HarborctlError, TargetError, UsageError
from harborctl.sqlstate import INSUFFICIENT_PRIVILEGE, INVALID_SCHEMA_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg
    from sqlalchemy import Connection

_MAY_CREATE = text(
    "SELECT pg_catalog.has_schema_privilege(oid, 'CREATE') FROM pg_catalog.pg_namespace WHERE nspname = :schema"
)

_WRITTEN = text("""
    SELECT attname AS name, pg_catalog.format_type(atttypid, atttypmod) AS type
    FROM pg_catalog.pg_attribute WHERE attrelid = CAST('pg_temp.harborctl_types' AS regclass) AND attnum > 0
    ORDER BY attnum
""")


def creation_place(connection: Connection, name: str) -> tuple[str, str]:
    """Schema and name of the table that `[schema.]table` would make: in the first schema of the user's path.

    Raises:
        TargetError: there is no such schema, or the path leads to none.
        AccessDenied: this user may not make tables there.
    """
    schema, table = split_name(name, folds=True)
    if schema is None:
        path = users_path(connection).schemas
        schema = next((each for each in path if each != "pg_catalog" and not each.startswith("pg_temp")), None)
    if schema is None:
        raise TargetError(
            f"no schema to make {name} in: the search path is empty",
            code=INVALID_SCHEMA_NAME,
            hint="Name one: -t SCHEMA.TABLE.",
        )
    may_create = connection.execute(_MAY_CREATE, {"schema": schema}).scalar_one_or_none()
    if may_create is None:
        quoted = sql.Identifier(schema).as_string()
        raise TargetError(
            f"there is no schema {schema}", code=INVALID_SCHEMA_NAME, hint=f"Make it: CREATE SCHEMA {quoted}."
        )
    if not may_create:
        raise AccessDenied(
            f"this user may not make a table in schema {schema}",
            code=INSUFFICIENT_PRIVILEGE,
            hint="Its owner can GRANT CREATE ON SCHEMA to this user; -t SCHEMA.TABLE names another schema.",
        )
    return schema, table


def written_types(connection: Connection, types: Sequence[str]) -> list[str]:
    """These types as the server writes them, with their schemas: what a user calls a type means what his path says.

    Raises:
        UsageError: one is no type.
    """
    found = []
    for name in types:
        columns = sql.SQL("CREATE TEMP TABLE harborctl_types (c {})").format(sql.SQL(name))
        try:
            with translated(), connection.begin_nested():
                with on_users_path(connection):
                    _driver(connection).execute(columns, binary=True)  # so it is a single statement
                with on_empty_path(connection):
                    [(_, written)] = connection.execute(_WRITTEN).all()
                    found.append(written)
                    _driver(connection).execute("DROP TABLE pg_temp.harborctl_types")
        except HarborctlError as error:
            raise UsageError(f"--type: {name} is no type: {error.message}", code=error.code) from error
        except ValueError as error:
            raise UsageError(f"--type: {name} is more than a type", code="42601") from error
    return found


def create_table(
    connection: Connection, schema: str, name: str, columns: Sequence[tuple[str, str]], key: Sequence[str] = ()
) -> None:
    """Make it, of columns with these names and types.

    Raises:
        StatementFailed: as the server says.
    """
    with translated():
        _driver(connection).execute(_creation(schema, name, columns, key))


def creation(schema: str | None, name: str, columns: Sequence[tuple[str, str]], key: Sequence[str] = ()) -> str:
    """CREATE TABLE, a column a line."""
    return _creation(schema, name, columns, key).as_string()


def _creation(schema: str | None, name: str, columns: Sequence[tuple[str, str]], key: Sequence[str]) -> sql.Composed:
    lines = [sql.SQL("    {} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in columns]
    if key:
        lines.append(sql.SQL("    PRIMARY KEY ({})").format(_identifiers(key)))
    table = sql.Identifier(schema, name) if schema is not None else sql.Identifier(name)
    return sql.SQL("CREATE TABLE {} (\n{}\n)").format(table, sql.SQL(",\n").join(lines))


def add_primary_key(connection: Connection, schema: str, name: str, columns: Sequence[str]) -> None:
    """Build it over the rows that are there.

    Raises:
        StatementFailed: rows have the same key, or none.
    """
    statement = sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(
        sql.Identifier(schema, name), _identifiers(columns)
    )
    with translated():
        _driver(connection).execute(statement)


def add_columns(connection: Connection, schema: str, name: str, columns: Sequence[tuple[str, str]]) -> None:
    """Add columns that may be NULL; rows that are there have NULL in them. No row is rewritten.

    Raises:
        AccessDenied: this user does not own the table.
    """
    added = [sql.SQL("ADD COLUMN {} {}").format(sql.Identifier(column), sql.SQL(kind)) for column, kind in columns]
    statement = sql.SQL("ALTER TABLE {} {}").format(sql.Identifier(schema, name), sql.SQL(", ").join(added))
    with translated():
        _driver(connection).execute(statement)


def _identifiers(names: Sequence[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))


def _driver(connection: Connection) -> psycopg.Connection[object]:
    driver: psycopg.Connection[object] = connection.connection.driver_connection  # type: ignore[assignment]
    return driver
