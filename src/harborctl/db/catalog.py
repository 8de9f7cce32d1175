"""What the database says about a table: its columns, their types and defaults, its keys.

Read with one query a part from the system catalogs, because SQLAlchemy's reflection does not tell what a loader has to
know: a domain's base type, a generated column, whether a default exists without its text.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, MetaData, Table, text
from sqlalchemy.types import UserDefinedType

from harborctl.errors import TargetError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

UNDEFINED_TABLE = "42P01"


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """One column of the target.

    Attributes:
        type: as `format_type` writes it, `numeric(15,2)`; what DDL takes.
        base: pg_type's name of the type itself, or of the type that a domain stands on: `numeric`, `_int4`, `mood`.
        modifier: the type modifier of `type`, or of the domain's base type; -1 for none.
        kind: pg_type.typtype of the base: `b` base, `c` composite, `e` enum, `r` range, `m` multirange.
        required: NOT NULL, and nothing fills it in when the file lacks it.
        generated: the database computes it; it cannot be loaded.
        always_identity: GENERATED ALWAYS AS IDENTITY.
    """

    name: str
    type: str
    base: str
    modifier: int
    kind: str
    required: bool
    generated: bool
    always_identity: bool


@dataclass(frozen=True, slots=True)
class Target:
    """A table that rows go into.

    Attributes:
        kind: pg_class.relkind: `r` table, `p` partitioned, `v` view, `f` foreign.
        keys: the columns of the primary key, if there is one, then of each unique index over plain columns.
        has_primary_key: whether the first of `keys` is the primary key.
    """

    oid: int
    schema: str
    name: str
    kind: str
    columns: tuple[TargetColumn, ...]
    keys: tuple[tuple[str, ...], ...]
    has_primary_key: bool

    @property
    def label(self) -> str:
        """`schema.name`, for people."""
        return f"{self.schema}.{self.name}"

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The primary key's columns; empty without one."""
        return self.keys[0] if self.has_primary_key else ()

    def column(self, name: str) -> TargetColumn | None:
        """The column of exactly this name."""
        return next((column for column in self.columns if column.name == name), None)

    def table(self) -> Table:
        """The table for Core statements. Its types only name themselves: values travel as text or come from columns."""
        columns = [Column(column.name, ServerType(column.type)) for column in self.columns]
        return Table(self.name, MetaData(), *columns, schema=self.schema)


class ServerType(UserDefinedType[Any]):
    """A type that only the server knows. Values are bound without a cast, so that the server reads them as it would a
    literal in that column's place: by the column type's own input function."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        """The type's name in DDL."""
        return self.name


_FIND = text("""
    WITH named AS (
        SELECT class.oid, namespace.nspname AS schema, class.relname AS name, class.relkind AS kind,
               pg_table_is_visible(class.oid) AS visible
        FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE class.relname = :name AND class.relkind IN ('r', 'p', 'v', 'f', 'm')
          AND (namespace.nspname = :schema OR CAST(:schema AS text) IS NULL)
          AND namespace.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
    )
    SELECT * FROM named ORDER BY visible DESC, schema
""")

_ALL_NAMES = text("""
    SELECT namespace.nspname, class.relname
    FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    WHERE class.relkind IN ('r', 'p', 'v', 'f', 'm')
      AND namespace.nspname NOT IN ('pg_catalog', 'information_schema') AND namespace.nspname NOT LIKE 'pg\\_t%'
""")

_COLUMNS = text("""
    WITH RECURSIVE bases AS (
        SELECT attribute.attnum, type.oid, attribute.atttypmod AS modifier,
               type.typtype, type.typbasetype, type.typtypmod, type.typname, type.typnotnull AS not_null
        FROM pg_attribute AS attribute JOIN pg_type AS type ON type.oid = attribute.atttypid
        WHERE attribute.attrelid = :oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
      UNION ALL
        SELECT bases.attnum, type.oid, bases.typtypmod, type.typtype, type.typbasetype, type.typtypmod,
               type.typname, bases.not_null OR type.typnotnull
        FROM bases JOIN pg_type AS type ON type.oid = bases.typbasetype
        WHERE bases.typtype = 'd'
    )
    SELECT attribute.attname AS name, format_type(attribute.atttypid, attribute.atttypmod) AS type,
           bases.typname AS base, bases.modifier, bases.typtype AS kind,
           (attribute.attnotnull OR bases.not_null) AND NOT attribute.atthasdef AND attribute.attidentity = ''
               AND NOT EXISTS (SELECT FROM pg_type AS declared
                               WHERE declared.oid = attribute.atttypid AND declared.typdefault IS NOT NULL) AS required,
           attribute.attgenerated <> '' AS generated,
           attribute.attidentity = 'a' AS always_identity
    FROM pg_attribute AS attribute JOIN bases ON bases.attnum = attribute.attnum AND bases.typtype <> 'd'
    WHERE attribute.attrelid = :oid
    ORDER BY attribute.attnum
""")

_KEYS = text("""
    SELECT index.indisprimary AS is_primary, array_agg(attribute.attname::text ORDER BY part.position) AS columns
    FROM pg_index AS index
    CROSS JOIN LATERAL unnest(index.indkey::int2[]) WITH ORDINALITY AS part (attnum, position)
    JOIN pg_attribute AS attribute ON attribute.attrelid = index.indrelid AND attribute.attnum = part.attnum
    WHERE index.indrelid = :oid AND index.indisunique AND index.indisvalid AND index.indimmediate
      AND index.indpred IS NULL AND index.indexprs IS NULL AND part.position <= index.indnkeyatts
    GROUP BY index.indexrelid, index.indisprimary
    ORDER BY index.indisprimary DESC, index.indexrelid
""")


def split_name(name: str) -> tuple[str | None, str]:
    """`[schema.]table` → its parts. Double quotes keep dots inside a part, as in SQL; `""` is a quote.

    Raises:
        UsageError: the name has more than two parts, or quotes that do not match.
    """
    parts, current, inside, position = [], "", False, 0
    while position < len(name):
        character = name[position]
        if character == '"' and inside and name[position + 1 : position + 2] == '"':
            current += '"'
            position += 1
        elif character == '"':
            inside = not inside
        elif character == "." and not inside:
            parts.append(current)
            current = ""
        else:
            current += character
        position += 1
    parts.append(current)
    if inside or not all(parts) or len(parts) > 2:
        raise UsageError(f"{name!r} is not a table name", code="bad_name", hint="Write schema.table, or just table.")
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def find_target(connection: Connection, name: str) -> Target:
    """The table that `[schema.]table` names: as written, else folded to lower case as SQL does; a bare name also where
    it is not on the search path, if it stands in one schema only.

    Raises:
        TargetError: there is none, or there are several.
    """
    schema, table = split_name(name)
    for spelling in dict.fromkeys([(schema, table), (schema and schema.lower(), table.lower())]):
        found = connection.execute(_FIND, {"schema": spelling[0], "name": spelling[1]}).all()
        if len(found) > 1 and not found[0].visible:
            places = ", ".join(f"{row.schema}.{row.name}" for row in found)
            raise TargetError(
                f"{name} is in several schemas: {places}", code="ambiguous_table", hint="Name the schema."
            )
        if found:
            return _described(connection, found[0])
    raise TargetError(
        f"there is no table {name}", code=UNDEFINED_TABLE, hint=_nearest(connection, name) or "See `harborctl tables`."
    )


def _described(connection: Connection, found: Any) -> Target:
    columns = connection.execute(_COLUMNS, {"oid": found.oid}).mappings()
    keys = connection.execute(_KEYS, {"oid": found.oid}).all()
    return Target(
        oid=found.oid,
        schema=found.schema,
        name=found.name,
        kind=found.kind,
        columns=tuple(TargetColumn(**column) for column in columns),
        keys=tuple(tuple(key.columns) for key in keys),
        has_primary_key=bool(keys and keys[0].is_primary),
    )


def _nearest(connection: Connection, name: str) -> str | None:
    tables = connection.execute(_ALL_NAMES).all()
    spellings = {row.relname: f"{row.nspname}.{row.relname}" for row in tables}
    spellings.update({full: full for full in spellings.values()})
    match = nearest(name, list(spellings))
    return f"Did you mean {spellings[match]}?" if match else None


def nearest(name: str, names: Sequence[str]) -> str | None:
    """The most similar of `names`, if one is similar at all."""
    folded = {candidate.lower(): candidate for candidate in names}
    match = difflib.get_close_matches(name.lower(), folded, n=1)
    return folded[match[0]] if match else None
