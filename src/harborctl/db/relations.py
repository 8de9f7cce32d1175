"""Finds tables by name or pattern, without describing them: what a command that looks at many of them needs.

Patterns are the shell's: `*`, `?` and `[a-z]`, in the schema, the name or both; double quotes keep them plain. Reads
the catalogs only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, Integer, bindparam, literal_column, select, table, text
from sqlalchemy.sql.elements import quoted_name

from harborctl.db.catalog import find_target, split_name
from harborctl.db.search_path import on_users_path, users_path
from harborctl.db.storage import hypertables
from harborctl.errors import TargetError
from harborctl.sqlstate import UNDEFINED_TABLE

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}


@dataclass(frozen=True, slots=True)
class Relation:
    """Something that rows can be read from. `kind` is pg_class.relkind, a key of `KINDS`; with `row_security` policies
    say which of its rows this user sees."""

    oid: int
    schema: str
    name: str
    kind: str
    readable: bool = True
    row_security: bool = False

    @property
    def label(self) -> str:
        """`schema.name`, for people."""
        return f"{self.schema}.{self.name}"

    def named(self) -> Any:
        """The table of exactly this name, for a Core statement."""
        return table(quoted_name(self.name, quote=True), schema=quoted_name(self.schema, quote=True))


_MAY_READ = text("""
    SELECT has_schema_privilege(relnamespace, 'USAGE') AND has_any_column_privilege(oid, 'SELECT') AS readable,
           row_security_active(oid) AS row_security
    FROM pg_class WHERE oid = :oid
""")

_ALL = text("""
    SELECT class.oid, namespace.nspname AS schema, class.relname AS name,
           CASE WHEN class.oid = ANY (CAST(:hypertables AS oid[])) THEN 'p' ELSE class.relkind END AS kind,
           class.relispartition OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = class.oid
                                           AND inhparent = ANY (CAST(:hypertables AS oid[]))) AS is_partition,
           array_position(CAST(:path AS text[]), namespace.nspname::text) IS NOT NULL AS visible,
           has_schema_privilege(namespace.oid, 'USAGE') AND has_any_column_privilege(class.oid, 'SELECT') AS readable,
           row_security_active(class.oid) AS row_security,
           namespace.nspname IN ('pg_catalog', 'information_schema') OR EXISTS (
               SELECT FROM pg_depend AS belongs JOIN pg_extension AS extension ON extension.oid = belongs.refobjid
               WHERE (belongs.classid, belongs.objid) = ('pg_namespace'::regclass, namespace.oid)
                 AND belongs.deptype = 'e' AND extension.extname IN ('citus', 'citus_columnar', 'timescaledb')
           ) AS is_system
    FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    WHERE class.relkind = ANY(:kinds) AND namespace.nspname NOT LIKE 'pg\\_t%'
    ORDER BY namespace.nspname, class.relname
""")


_SYSTEM = text("""
    SELECT class.oid, namespace.nspname AS schema, class.relname AS name, class.relkind AS kind
    FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    WHERE class.relname = :name AND namespace.nspname = :schema AND class.relkind IN ('r', 'v')
      AND namespace.nspname IN ('pg_catalog', 'information_schema')
""")


def find_relation(connection: Connection, name: str) -> Relation:
    """The table or view of this name, as `find_target` finds it, or else the system catalog.

    Raises:
        TargetError: there is none, or there are several.
    """
    found: Any
    try:
        found = find_target(connection, name)
    except TargetError:
        schema, table_name = split_name(name)
        found = connection.execute(_SYSTEM, {"schema": schema or "pg_catalog", "name": table_name}).one_or_none()
        if found is None:
            raise
    rights = connection.execute(_MAY_READ, {"oid": found.oid}).one()
    return Relation(found.oid, found.schema, found.name, found.kind, rights.readable, rights.row_security)


def is_pattern(name: str) -> bool:
    """Whether the name has a `*`, `?` or `[` outside of quotes."""
    return re.search(r"[*?\[]", _QUOTED.sub("", name)) is not None


def matching(connection: Connection, pattern: str | None = None, *, views: bool = False) -> list[Relation]:
    """The tables that match, by schema and name; without a pattern all. Without a schema in it, those that the search
    path leads to; the system's own only of a schema that is named in full. A partition belongs to its table: it is
    listed only where the pattern matches nothing else.

    Raises:
        TargetError: nothing matches.
    """
    kinds = [kind for kind in KINDS if views or kind != "v"]
    given = {
        "kinds": kinds,
        "path": list(users_path(connection).schemas),
        "hypertables": hypertables(connection),
    }
    every = connection.execute(_ALL, given).all()
    rows = [row for row in every if not row.is_system]
    if pattern is not None:
        schema, name = _globs(pattern)
        rows += [row for row in every if row.is_system and row.schema == (schema or "").lower()]
        for fold in (str, str.lower):  # as written, else as SQL folds it
            found = [
                row
                for row in rows
                if fnmatchcase(row.name, fold(name))
                and (row.visible if schema is None else fnmatchcase(row.schema, fold(schema)))
            ]
            if found:
                break
        else:
            raise TargetError(
                f"no table matches {pattern}", code=UNDEFINED_TABLE, hint="`harborctl tables` lists what there is."
            )
        rows = found
    whole = [row for row in rows if not row.is_partition]
    shown = whole if whole or pattern is None else rows
    return [Relation(row.oid, row.schema, row.name, row.kind, row.readable, row.row_security) for row in shown]


def quoted(*parts: str) -> str:
    """Identifiers as SQL writes them, whatever they hold: `"schema"."table"`."""
    return ".".join(['"' + part.replace('"', '""') + '"' for part in parts])


def condition(sql: str) -> ColumnElement[bool]:
    """What a person wrote for WHERE. The statement it goes into must bind a value: then the server takes one statement
    only, whatever the text holds."""
    return literal_column("(" + sql + "\n)", Boolean)


def require_one_expression(connection: Connection, relation: Relation, sql: str) -> None:
    """Let the server refuse what is a condition only between parentheses, as `a) OR (b` is. Runs nothing."""
    statement = select(bindparam("one", 1, Integer)).select_from(relation.named())
    statement = statement.where(condition(sql), literal_column("ARRAY[" + sql + "\n] IS NULL", Boolean)).limit(0)
    with on_users_path(connection):
        connection.execute(statement)


_QUOTED = re.compile(r'"(?:[^"]|"")*"')
# Characters of the private use area stand in for wildcards between quotes, while the name is taken apart.
_PLAIN = {ord("*"): "\ue000", ord("?"): "\ue001", ord("["): "\ue002"}
_AS_GLOB = {0xE000: "[*]", 0xE001: "[?]", 0xE002: "[[]"}


def _globs(pattern: str) -> tuple[str | None, str]:
    schema, name = split_name(_QUOTED.sub(lambda quoted: quoted.group().translate(_PLAIN), pattern))
    return schema and schema.translate(_AS_GLOB), name.translate(_AS_GLOB)
