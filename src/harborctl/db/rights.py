"""The rights that loading needs beside those on its target: on the ledger, its schema and temporary tables.

What is granted, what is asked after and what the documentation says come from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql
from sqlalchemy import text
from sqlalchemy.dialects.postgresql import dialect

from harborctl.db.tables import (
    HARBOR_SCHEMA,
    LEDGER_SCHEMA,
    chunks,
    files,
    harbor,
    ledger,
    loads,
    rejects,
    stock_movements,
)
from harborctl.errors import UsageError
from harborctl.plain_text import masked

if TYPE_CHECKING:
    from sqlalchemy import Connection

# Where each branch of the migrations has its tables.
SCHEMAS = {"ledger": LEDGER_SCHEMA, "harbor": HARBOR_SCHEMA}
VERSION_TABLE = "alembic_version"

# What a load does to the ledger's tables; a table that is not here it may do everything to.
_LEDGER = {
    loads.name: ("SELECT", "INSERT", "UPDATE"),
    files.name: ("SELECT", "INSERT"),
    chunks.name: ("SELECT", "INSERT"),
    rejects.name: ("SELECT", "INSERT", "DELETE"),
}
# What the modes of loads do to the rows of their target.
ROWS = ("SELECT", "INSERT", "UPDATE", "DELETE")

_TEMPORARY = """\
DO $harborctl$ BEGIN
    IF NOT has_database_privilege({name}, current_database(), 'TEMPORARY') THEN
        EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO %I', current_database(), {name});
    END IF;
END $harborctl$"""


def needed(schema: str) -> dict[str, tuple[str, ...]]:
    """The privileges that a load needs, or may need, on each of our tables in this schema."""
    if schema == HARBOR_SCHEMA:
        # The history of stock is only added to.
        return {table.name: (*ROWS, "TRUNCATE") for table in harbor.sorted_tables} | {
            stock_movements.name: ("SELECT", "INSERT")
        }
    return {table.name: _LEDGER.get(table.name, ROWS) for table in ledger.sorted_tables} | {VERSION_TABLE: ("SELECT",)}


def grants(branches: list[str], role: str) -> list[str]:
    """The statements that give `role` what a load needs on these branches.

    Raises:
        UsageError: it is no role, but a place with a password.
    """
    if masked(role) != role:
        raise UsageError("a connection stands where a role belongs", hint="Name the role alone.")
    statements = [sql.SQL(_TEMPORARY).format(name=sql.Literal(role)).as_string()]
    for branch in branches:
        schema = SCHEMAS[branch]
        statements.append(grant_usage(schema, role))
        statements += [grant(schema, table, privileges, role) for table, privileges in needed(schema).items()]
    return statements


def grant(schema: str, table: str, privileges: tuple[str, ...], role: str) -> str:
    """One GRANT on a table."""
    listed = sql.SQL(", ").join(sql.SQL(privilege) for privilege in privileges)
    statement = sql.SQL("GRANT {} ON {} TO {}")
    return statement.format(listed, _name(schema, table), _name(role)).as_string()


def grant_usage(schema: str, role: str) -> str:
    """The GRANT that opens a schema."""
    return sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(_name(schema), _name(role)).as_string()


def grant_all(schema: str, role: str) -> str:
    """The GRANT that lets all modes of loads into all tables of a schema."""
    statement = sql.SQL("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {} TO {}")
    return statement.format(_name(schema), _name(role)).as_string()


def raise_limit(kind: str, name: str, count: int) -> str:
    """The statement that lets a role, or a database, have so many sessions."""
    statement = sql.SQL("ALTER {} {} CONNECTION LIMIT {}").format(sql.SQL(kind), _name(name), sql.Literal(count))
    return statement.as_string()


@dataclass(frozen=True, slots=True)
class RowRights:
    """What this user may do to the rows of a table, of what loads do, each as GRANT says it: `INSERT (id, name)`.

    Attributes:
        held: on the whole table, or on some columns: such a load fills those.
        lacking: on the whole table; of the right to insert also the columns that every row needs.
    """

    held: tuple[str, ...]
    lacking: tuple[str, ...]


def on_rows(connection: Connection, oid: int) -> RowRights:
    """What this user may do to the rows of a table."""
    held, lacking = [], []
    for row in connection.execute(_ON_ROWS, {"oid": oid, "privileges": list(ROWS)}):
        if row.whole or row.columns:
            held.append(row.privilege if row.whole else _on_columns(row.privilege, row.columns))
        if not row.whole and (row.needed or not row.columns):
            lacking.append(_on_columns(row.privilege, row.needed) if row.columns else row.privilege)
    return RowRights(tuple(held), tuple(lacking))


def _on_columns(privilege: str, columns: list[str]) -> str:
    return f"{privilege} ({', '.join(map(_QUOTES.quote, columns))})"


# DELETE is of whole tables only. A row needs the columns without a default that may not be NULL.
_ON_ROWS = text("""
    SELECT wanted.privilege, has_table_privilege(CAST(:oid AS oid), wanted.privilege) AS whole,
           array_agg(CAST(a.attname AS text) ORDER BY a.attnum) FILTER (WHERE may.so) AS columns,
           array_agg(CAST(a.attname AS text) ORDER BY a.attnum) FILTER (
               WHERE NOT may.so AND wanted.privilege = 'INSERT' AND a.attnotnull AND NOT a.atthasdef
                     AND a.attidentity = '' AND t.typdefault IS NULL
           ) AS needed
    FROM unnest(CAST(:privileges AS text[])) WITH ORDINALITY AS wanted (privilege, number)
    CROSS JOIN pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
    CROSS JOIN LATERAL (
        SELECT CASE WHEN wanted.privilege = 'DELETE' THEN has_table_privilege(a.attrelid, wanted.privilege)
                    ELSE has_column_privilege(a.attrelid, a.attnum, wanted.privilege) END AS so
    ) AS may
    WHERE a.attrelid = CAST(:oid AS oid) AND a.attnum > 0 AND NOT a.attisdropped
    GROUP BY wanted.privilege, wanted.number ORDER BY wanted.number
""")


def missing_temporary(connection: Connection) -> str | None:
    """The GRANT that lets this user make temporary tables, if it is lacking."""
    row = connection.execute(_TEMPORARY_TABLES).one()
    if row.has:
        return None
    return sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(_name(row.database), _name(row.user)).as_string()


def missing(connection: Connection) -> list[str]:
    """The GRANTs on the ledger that this user lacks, for loads; none where there is no ledger."""
    user = connection.execute(text("SELECT current_user")).scalar_one()
    wanted = [(table, privilege) for table, privileges in needed(LEDGER_SCHEMA).items() for privilege in privileges]
    names = {"tables": [table for table, _ in wanted], "privileges": [privilege for _, privilege in wanted]}
    lacking: dict[str, tuple[str, ...]] = {}
    for row in connection.execute(_LACKING, {"schema": LEDGER_SCHEMA} | names):
        lacking[row.name] = (*lacking.get(row.name, ()), row.privilege)
    closed = connection.execute(_CLOSED, {"schema": LEDGER_SCHEMA}).scalar_one_or_none()
    return ([grant_usage(LEDGER_SCHEMA, user)] if closed else []) + [
        grant(LEDGER_SCHEMA, table, privileges, user) for table, privileges in lacking.items()
    ]


_TEMPORARY_TABLES = text("""
    SELECT has_database_privilege(current_database(), 'TEMPORARY') AS has, current_database() AS database,
           current_user AS "user"
""")
_CLOSED = text("SELECT NOT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = :schema")
_LACKING = text("""
    SELECT c.relname AS name, wanted.privilege
    FROM unnest(CAST(:tables AS text[]), CAST(:privileges AS text[])) WITH ORDINALITY
         AS wanted (name, privilege, number)
    JOIN pg_class AS c ON c.relname = wanted.name JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE n.nspname = :schema AND NOT has_table_privilege(c.oid, wanted.privilege)
    ORDER BY wanted.number
""")


def _name(*parts: str) -> sql.SQL:
    """A name as people write it: with quotes where it needs them."""
    return sql.SQL(".".join(map(_QUOTES.quote, parts)))


_QUOTES = dialect().identifier_preparer  # type: ignore[no-untyped-call]
