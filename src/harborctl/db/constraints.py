"""What a table demands of its rows, as far as a query can look for rows that do not meet it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import text

from harborctl.db.search_path import on_empty_path
from harborctl.db.storage import hypertables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """What a foreign key points at.

    Attributes:
        schema, table, columns: the referenced ones.
        operators: for each column what says that the referenced value equals the referencing one, as SQL writes it.
        full: MATCH FULL: of several columns none or all are NULL.
        only: rows of tables that inherit from the referenced one do not count.
        own: rows of the target are among those that it points at.
        sure: a query of this user sees the same rows as the server does when it checks.
    """

    schema: str
    table: str
    columns: tuple[str, ...]
    operators: tuple[str, ...]
    full: bool
    only: bool
    own: bool
    sure: bool


@dataclass(frozen=True, slots=True)
class Constraint:
    """A constraint or unique index that is in force, of a table or of one of its partitions.

    Attributes:
        aliases: what the same constraint is called in partitions, and so in the server's messages.
        whole: it holds for all rows, not for those of some partition only.
        kind: pg_constraint.contype: `c` check, `f` foreign key, `p` primary key, `u` unique, `x` exclusion; `i` is an
            index that belongs to none.
        columns: those that it is on, in its order; not complete where it is on expressions.
        expression: of a check, as the server writes it.
        plain: of a unique index: on columns only, for all rows, and NULLs are distinct.
        equalities: of a unique index, for each part the operator by which values are the same: `OPERATOR(schema.=)`.
    """

    name: str
    aliases: frozenset[str]
    kind: str
    columns: tuple[str, ...]
    expression: str | None
    plain: bool
    reference: ForeignKey | None
    equalities: tuple[str, ...]
    whole: bool

    @property
    def names(self) -> frozenset[str]:
        """All names that the server may give it."""
        return self.aliases | {self.name}


# Of the constraints of partitions those that the table itself has are left out: they are its own under another name.
# `conenforced` there is from PostgreSQL 18 on; a row as JSON has it where the column exists.
_CONSTRAINTS = text("""
    WITH RECURSIVE tree (oid) AS (
        SELECT CAST(:oid AS oid)
      UNION
        SELECT relid::oid FROM pg_partition_tree(CAST(CAST(:oid AS oid) AS regclass))
    ), demanded AS (
        SELECT oid, conrelid AS relation, conname AS name, contype::text AS kind, conkey AS key, conbin, conindid,
               confrelid, confkey, conpfeqop, confmatchtype
        FROM pg_constraint
        WHERE conrelid IN (SELECT oid FROM tree) AND contype IN ('c', 'f', 'p', 'u', 'x')
          AND (conrelid = :oid OR conparentid = 0 AND (contype <> 'c' OR coninhcount = 0))
          AND coalesce((to_jsonb(pg_constraint) ->> 'conenforced')::boolean, true)
      UNION ALL
        SELECT NULL, index.indrelid, class.relname, 'i', index.indkey::int2[], NULL, index.indexrelid, 0, NULL, NULL,
               NULL
        FROM pg_index AS index JOIN pg_class AS class ON class.oid = index.indexrelid
        WHERE index.indrelid IN (SELECT oid FROM tree) AND index.indisunique
          AND (index.indrelid = :oid OR NOT class.relispartition)
          AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = index.indexrelid AND conrelid = index.indrelid)
    ), same (top, oid) AS (
        SELECT oid, oid FROM demanded WHERE kind = 'f' AND relation = :oid
      UNION
        SELECT same.top, part.oid FROM same JOIN pg_constraint AS part ON part.conparentid = same.oid
    ), same_index (top, oid) AS (
        SELECT conindid, conindid FROM demanded WHERE kind IN ('p', 'u', 'i', 'x') AND relation = :oid
      UNION
        SELECT same_index.top, inhrelid FROM same_index JOIN pg_inherits ON inhparent = same_index.oid
    )
    SELECT demanded.name, demanded.kind, demanded.relation = :oid AS whole,
           CASE WHEN demanded.kind = 'f'
                THEN ARRAY(SELECT conname::text FROM same JOIN pg_constraint USING (oid) WHERE top = demanded.oid)
                ELSE ARRAY(SELECT relname::text FROM same_index JOIN pg_class USING (oid)
                           WHERE top = demanded.conindid AND demanded.relation = :oid)
           END AS aliases,
           ARRAY(SELECT attname::text FROM unnest(demanded.key) WITH ORDINALITY AS part (number, position)
                 JOIN pg_attribute ON attrelid = demanded.relation AND attnum = part.number AND part.number > 0
                 ORDER BY part.position) AS columns,
           pg_get_expr(demanded.conbin, demanded.relation) AS expression,
           coalesce(index.indpred IS NULL AND index.indexprs IS NULL AND NOT index.indnullsnotdistinct
                    AND index.indnkeyatts = index.indnatts, false) AS plain,
           namespace.nspname AS schema, class.relname AS "table",
           ARRAY(SELECT attname::text FROM unnest(demanded.confkey) WITH ORDINALITY AS part (number, position)
                 JOIN pg_attribute ON attrelid = demanded.confrelid AND attnum = part.number
                 ORDER BY part.position) AS referenced,
           ARRAY(SELECT format('OPERATOR(%I.%s)', place.nspname, operator.oprname)
                 FROM unnest(demanded.conpfeqop) WITH ORDINALITY AS part (oid, position)
                 JOIN pg_operator AS operator ON operator.oid = part.oid
                 JOIN pg_namespace AS place ON place.oid = operator.oprnamespace
                 WHERE operator.oprname = '=' ORDER BY part.position) AS operators,
           -- Of btree the third strategy is equality.
           ARRAY(SELECT format('OPERATOR(%s.%s)', operator.oprnamespace::regnamespace, operator.oprname)
                 FROM unnest(index.indclass::oid[]) WITH ORDINALITY AS part (oid, position)
                 JOIN pg_opclass AS opclass ON opclass.oid = part.oid
                 JOIN pg_amop AS member ON member.amopfamily = opclass.opcfamily AND member.amopstrategy = 3
                      AND (member.amoplefttype, member.amoprighttype) = (opclass.opcintype, opclass.opcintype)
                 JOIN pg_operator AS operator ON operator.oid = member.amopopr
                 ORDER BY part.position) AS equalities,
           demanded.confmatchtype = 'f' AS "full",
           class.relkind = 'r' AND class.oid <> ALL (CAST(:hypertables AS oid[])) AS "only",
           demanded.confrelid IN (SELECT oid FROM tree)
               OR demanded.confrelid IN (
                   SELECT relid FROM pg_partition_ancestors(CAST(CAST(:oid AS oid) AS regclass))) AS own,
           has_table_privilege(class.oid, 'SELECT') AND has_schema_privilege(namespace.oid, 'USAGE')
               AND NOT row_security_active(class.oid) AS sure
    FROM demanded
    LEFT JOIN pg_index AS index ON index.indexrelid = demanded.conindid AND demanded.kind IN ('p', 'u', 'i')
    LEFT JOIN pg_class AS class ON class.oid = demanded.confrelid
    LEFT JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    ORDER BY whole DESC, demanded.name
""")


def constraints_of(connection: Connection, oid: int) -> tuple[Constraint, ...]:
    """All constraints and unique indexes of the table that are in force, then those that only partitions have."""
    found = []
    with on_empty_path(connection):
        rows = connection.execute(_CONSTRAINTS, {"oid": oid, "hypertables": hypertables(connection)}).all()
    for row in rows:
        reference = None
        # A key that is about periods has an operator other than `=`.
        if row.kind == "f" and len(row.operators) == len(row.columns):
            reference = ForeignKey(
                row.schema,
                row.table,
                tuple(row.referenced),
                tuple(row.operators),
                row.full,
                row.only,
                row.own,
                row.sure,
            )
        columns, equalities = tuple(row.columns), tuple(row.equalities)
        plain = row.plain and len(equalities) == len(columns)
        known = frozenset(row.aliases)
        found.append(
            Constraint(row.name, known, row.kind, columns, row.expression, plain, reference, equalities, row.whole)
        )
    return tuple(found)


def named(constraints: Sequence[Constraint], name: str | None) -> Constraint | None:
    """The constraint that the server calls so; that of the table itself before one of a partition."""
    return next((constraint for constraint in constraints if name in constraint.names), None)
