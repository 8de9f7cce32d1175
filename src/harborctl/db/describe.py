"""What a person wants to know of tables: what they hold, how large they are, and what hangs together.

Reads the catalogs and file sizes, never the rows. For what a load has to know of its target see `catalog`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from harborctl.db.relations import KINDS, find_relation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from harborctl.db.relations import Relation


@dataclass(frozen=True, slots=True)
class TableSummary:
    """A table in a list.

    Attributes:
        rows: estimated, with partitions; None where the catalogs know nothing, as of a view.
        bytes: on disk, with indexes, TOAST and partitions; None for what is not stored here.
    """

    table: str
    kind: str
    rows: int | None
    bytes: int | None
    comment: str | None


@dataclass(frozen=True, slots=True)
class ColumnDescription:
    """A column. `default` is SQL: of a generated column its expression, of an identity column what fills it."""

    name: str
    type: str
    nullable: bool
    default: str | None
    comment: str | None


@dataclass(frozen=True, slots=True)
class Constraint:
    """A constraint as PostgreSQL writes it. `kind` is `primary key`, `unique`, `check` or `exclusion`."""

    name: str
    kind: str
    definition: str


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """`table`'s `columns` refer to `other_columns` of `other_table`."""

    name: str
    table: str
    columns: tuple[str, ...]
    other_table: str
    other_columns: tuple[str, ...]
    definition: str


@dataclass(frozen=True, slots=True)
class Index:
    """An index. One that is not valid is left over from a failed build: it costs, and serves nobody."""

    name: str
    definition: str
    unique: bool
    valid: bool
    bytes: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes on disk, with all partitions."""

    table: int
    toast: int
    indexes: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.table + self.toast + self.indexes


@dataclass(frozen=True, slots=True)
class TableDescription:
    """One table.

    Attributes:
        kind: a value of `KINDS`.
        partitioned_by: the partition key, as PostgreSQL writes it.
        partition_of: the table that this one is a part of.
        partitions: `schema.name` of its own parts.
        sizes: None for what is not stored here.
        query: of a view.
        referenced_by: foreign keys of other tables, and of this one, that refer to it.
    """

    schema: str
    name: str
    kind: str
    owner: str
    comment: str | None
    partitioned_by: str | None
    partition_of: str | None
    partitions: tuple[str, ...]
    columns: tuple[ColumnDescription, ...]
    constraints: tuple[Constraint, ...]
    foreign_keys: tuple[ForeignKey, ...]
    referenced_by: tuple[ForeignKey, ...]
    indexes: tuple[Index, ...]
    sizes: Sizes | None
    query: str | None

    @property
    def label(self) -> str:
        """`schema.name`, for people."""
        return f"{self.schema}.{self.name}"


# As `counts` estimates, but all tables in one go and from the catalogs alone.
_SUMMARIES = text("""
    WITH RECURSIVE parts AS (
        SELECT oid AS root, oid FROM pg_class WHERE oid = ANY(:oids)
      UNION
        SELECT parts.root, child.inhrelid FROM pg_inherits AS child JOIN parts ON parts.oid = child.inhparent
    ),
    measured AS (
        SELECT parts.root, class.relkind, class.reltuples, class.relpages,
               CASE WHEN class.relkind IN ('r', 'm') THEN pg_relation_size(class.oid) END AS bytes,
               CASE WHEN class.relkind IN ('r', 'm') THEN pg_total_relation_size(class.oid) END AS all_bytes,
               pg_stat_get_live_tuples(class.oid) AS live
        FROM parts JOIN pg_class AS class ON class.oid = parts.oid
    ),
    estimated AS (
        SELECT measured.*,
               CASE WHEN relkind = 'p' OR bytes = 0 THEN 0
                    WHEN relkind = 'f' AND reltuples >= 0 THEN reltuples
                    WHEN reltuples >= 0 AND relpages > 0
                        THEN reltuples / relpages * (bytes / current_setting('block_size')::bigint)
                    WHEN live > 0 THEN live END AS rows
        FROM measured
    )
    SELECT root, CASE WHEN bool_and(rows IS NOT NULL) THEN sum(rows) END AS rows, sum(all_bytes)::bigint AS bytes,
           obj_description(root, 'pg_class') AS comment
    FROM estimated GROUP BY root
""")


def summarized(connection: Connection, relations: Sequence[Relation]) -> list[TableSummary]:
    """A line for each of the tables, in their order."""
    rows = {row.root: row for row in connection.execute(_SUMMARIES, {"oids": [r.oid for r in relations]})}
    summaries = []
    for relation in relations:
        row = rows.get(relation.oid)
        if row is None:  # dropped since it was found
            continue
        estimate = None if row.rows is None else round(row.rows)
        size = (row.bytes or 0) if relation.kind == "p" else row.bytes
        summaries.append(TableSummary(relation.label, KINDS[relation.kind], estimate, size, row.comment))
    return summaries


_TABLE = text("""
    SELECT pg_get_userbyid(class.relowner) AS owner, obj_description(class.oid, 'pg_class') AS comment,
           pg_get_partkeydef(class.oid) AS partitioned_by,
           CASE WHEN class.relispartition
                THEN (SELECT concat_ws('.', namespace.nspname, parent.relname)
                      FROM pg_inherits AS link JOIN pg_class AS parent ON parent.oid = link.inhparent
                      JOIN pg_namespace AS namespace ON namespace.oid = parent.relnamespace
                      WHERE link.inhrelid = class.oid) END AS partition_of,
           CASE WHEN class.relkind IN ('v', 'm') THEN pg_get_viewdef(class.oid, true) END AS query
    FROM pg_class AS class WHERE class.oid = :oid
""")

_PARTITIONS = text("""
    SELECT concat_ws('.', namespace.nspname, class.relname) AS name
    FROM pg_inherits AS link JOIN pg_class AS class ON class.oid = link.inhrelid
    JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    WHERE link.inhparent = :oid
    ORDER BY namespace.nspname, class.relname
""")

_COLUMNS = text("""
    SELECT attribute.attname AS name, format_type(attribute.atttypid, attribute.atttypmod) AS type,
           NOT attribute.attnotnull AS nullable,
           CASE WHEN attribute.attidentity = 'a' THEN 'generated always as identity'
                WHEN attribute.attidentity = 'd' THEN 'generated by default as identity'
                WHEN attribute.attgenerated <> ''
                    THEN format('generated always as (%s)', pg_get_expr(stored.adbin, stored.adrelid))
                ELSE pg_get_expr(stored.adbin, stored.adrelid) END AS "default",
           col_description(attribute.attrelid, attribute.attnum) AS comment
    FROM pg_attribute AS attribute
    LEFT JOIN pg_attrdef AS stored ON stored.adrelid = attribute.attrelid AND stored.adnum = attribute.attnum
    WHERE attribute.attrelid = :oid AND attribute.attnum > 0 AND NOT attribute.attisdropped
    ORDER BY attribute.attnum
""")

# From PostgreSQL 18 on NOT NULL is a constraint, too; it stands with its column.
_CONSTRAINTS = text("""
    SELECT conname AS name,
           CASE contype WHEN 'p' THEN 'primary key' WHEN 'u' THEN 'unique' WHEN 'c' THEN 'check'
                        WHEN 'x' THEN 'exclusion' END AS kind,
           pg_get_constraintdef(oid, true) AS definition
    FROM pg_constraint
    WHERE conrelid = :oid AND contype IN ('p', 'u', 'c', 'x')
    ORDER BY array_position(ARRAY['p', 'u', 'x', 'c'], contype::text), conname
""")

# A foreign key of or to a partitioned table has copies for each partition; those have a parent.
_FOREIGN_KEYS = text("""
    SELECT key.conname AS name, key.conrelid = :oid AS own, key.confrelid = :oid AS incoming,
           concat_ws('.', near_schema.nspname, near.relname) AS "table",
           concat_ws('.', far_schema.nspname, far.relname) AS other_table,
           ARRAY(SELECT attname::text FROM unnest(key.conkey) WITH ORDINALITY AS part (attnum, position)
                 JOIN pg_attribute USING (attnum) WHERE attrelid = key.conrelid ORDER BY position) AS columns,
           ARRAY(SELECT attname::text FROM unnest(key.confkey) WITH ORDINALITY AS part (attnum, position)
                 JOIN pg_attribute USING (attnum) WHERE attrelid = key.confrelid ORDER BY position) AS other_columns,
           pg_get_constraintdef(key.oid, true) AS definition
    FROM pg_constraint AS key
    JOIN pg_class AS near ON near.oid = key.conrelid
    JOIN pg_namespace AS near_schema ON near_schema.oid = near.relnamespace
    JOIN pg_class AS far ON far.oid = key.confrelid
    JOIN pg_namespace AS far_schema ON far_schema.oid = far.relnamespace
    WHERE key.contype = 'f' AND (key.conrelid = :oid OR key.confrelid = :oid)
      AND (key.conparentid = 0 OR (key.conrelid = :oid AND near.relispartition))
    ORDER BY 4, key.conname
""")

_INDEXES = text("""
    SELECT class.relname AS name, pg_get_indexdef(index.indexrelid) AS definition, index.indisunique AS unique,
           index.indisvalid AS valid, pg_relation_size(index.indexrelid) AS bytes
    FROM pg_index AS index JOIN pg_class AS class ON class.oid = index.indexrelid
    WHERE index.indrelid = :oid
    ORDER BY index.indisprimary DESC, class.relname
""")

_SIZES = text("""
    WITH RECURSIVE parts AS (
        SELECT CAST(:oid AS oid) AS oid
      UNION
        SELECT child.inhrelid FROM pg_inherits AS child JOIN parts ON parts.oid = child.inhparent
    )
    SELECT coalesce(sum(pg_table_size(class.oid) - coalesce(pg_total_relation_size(nullif(class.reltoastrelid, 0)), 0)),
                    0)::bigint AS "table",
           coalesce(sum(pg_total_relation_size(nullif(class.reltoastrelid, 0))), 0)::bigint AS toast,
           coalesce(sum(pg_indexes_size(class.oid)), 0)::bigint AS indexes
    FROM parts JOIN pg_class AS class ON class.oid = parts.oid
    WHERE class.relkind IN ('r', 'm')
""")


def described(connection: Connection, name: str) -> TableDescription:
    """The table or view of this name, `[schema.]table` as SQL writes it.

    Raises:
        TargetError: there is none, or there are several.
    """
    relation = find_relation(connection, name)
    oid = {"oid": relation.oid}
    table = connection.execute(_TABLE, oid).one()
    keys = connection.execute(_FOREIGN_KEYS, oid).all()

    def foreign_keys(wanted: str) -> tuple[ForeignKey, ...]:
        return tuple(
            ForeignKey(k.name, k.table, tuple(k.columns), k.other_table, tuple(k.other_columns), k.definition)
            for k in keys
            if getattr(k, wanted)
        )

    sizes = connection.execute(_SIZES, oid).one() if relation.kind in ("r", "p", "m") else None
    return TableDescription(
        schema=relation.schema,
        name=relation.name,
        kind=KINDS[relation.kind],
        owner=table.owner,
        comment=table.comment,
        partitioned_by=table.partitioned_by,
        partition_of=table.partition_of,
        partitions=tuple(connection.execute(_PARTITIONS, oid).scalars()),
        columns=tuple(ColumnDescription(**column) for column in connection.execute(_COLUMNS, oid).mappings()),
        constraints=tuple(Constraint(*row) for row in connection.execute(_CONSTRAINTS, oid)),
        foreign_keys=foreign_keys("own"),
        referenced_by=foreign_keys("incoming"),
        indexes=tuple(Index(*row) for row in connection.execute(_INDEXES, oid)),
        sizes=Sizes(*sizes) if sizes else None,
        query=table.query.strip() if table.query else None,
    )
