"""What the database says about a table: its columns, their types and defaults, its keys.

Read with one query a part from the system catalogs, because SQLAlchemy's reflection does not tell what a loader has to
know: a domain's base type, a generated column, whether a default exists without its text.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, MetaData, Table, Text, cast, column, func, select, text
from sqlalchemy.types import UserDefinedType

from harborctl.db.search_path import users_path
from harborctl.db.storage import EXTENSIONS, Storage, divided_by, hypertables, kept_in, remember_extensions
from harborctl.errors import TargetError, UsageError
from harborctl.nearest import nearest
from harborctl.sqlstate import UNDEFINED_TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import BindParameter, ColumnElement, Connection


@dataclass(frozen=True, slots=True)
class TargetColumn:
    """One column of the target.

    Attributes:
        type: as `format_type` writes it, `numeric(15,2)`; what DDL takes.
        base: pg_type's name of the type itself, or of the type that a domain stands on: `numeric`, `_int4`, `mood`.
        modifier: the type modifier of `type`, or of the domain's base type; -1 for none.
        kind: pg_type.typtype of the base: `b` base, `c` composite, `e` enum, `r` range, `m` multirange.
        not_null: NULL can never stand in it.
        required: NOT NULL, and nothing fills it in when the file lacks it.
        generated: the database computes it; it cannot be loaded.
        always_identity: GENERATED ALWAYS AS IDENTITY.
        sequence: what its default takes numbers from, `schema.name`; None where it takes none.
        folding: its collation as SQL names it, if that may call different texts equal.
        send: schema and name of the function that makes bytes of its values, which no setting changes; None where it,
            or that of a part, is missing, or may fail.
        readable: this user may SELECT it.
        element: of an array, what it is made of, in any number of dimensions; else None.
        attributes: of a composite, what it is made of, in order.
    """

    name: str
    type: str
    base: str
    modifier: int
    kind: str
    not_null: bool
    required: bool
    generated: bool
    always_identity: bool
    sequence: str | None
    folding: str | None
    send: tuple[str, str] | None = None
    readable: bool = True
    element: TargetColumn | None = None
    attributes: tuple[TargetColumn, ...] = ()

    @property
    def server_type(self) -> ServerType:
        """The type for Core: values bound to it are read as COPY reads them."""
        cut_alike = self.modifier < 0 or self.base.removeprefix("_") in _CUT_ALIKE
        return ServerType(self.type) if cut_alike else ModifiedType(self.type)


@dataclass(frozen=True, slots=True)
class KeyPart:
    """One part of a unique index.

    Attributes:
        text: a column's name, or an expression as the server writes it.
        arbiter: the part in ON CONFLICT, with the collation and the operator class that tell its index from others.
        equality: the operator that says which values the index takes for the same, as `OPERATOR(schema.=)`.
    """

    text: str
    is_column: bool
    arbiter: str
    equality: str


@dataclass(frozen=True, slots=True)
class UniqueKey:
    """A unique index, that of a constraint included.

    Attributes:
        constraint: the constraint that the index is behind.
        condition: the predicate of a partial index, as the server writes it.
        columns: all columns that parts and condition read.
        nulls_distinct: NULL is not equal to NULL: a row with one there has no key.
        obstacle: why no load can go by it, as what the index is; None where one can.
    """

    name: str
    parts: tuple[KeyPart, ...]
    constraint: str | None
    condition: str | None
    columns: tuple[str, ...]
    nulls_distinct: bool
    obstacle: str | None
    is_primary: bool

    @property
    def label(self) -> str:
        """`(a, lower(b)) WHERE c`, for people."""
        parts = ", ".join(part.text for part in self.parts)
        return f"({parts}) WHERE {self.condition}" if self.condition else f"({parts})"

    @property
    def is_plain(self) -> bool:
        """Whether its parts are columns and it holds for all rows."""
        return self.condition is None and all(part.is_column for part in self.parts)


@dataclass(frozen=True, slots=True)
class Relation:
    """A table that was found.

    Attributes:
        kind: pg_class.relkind: `r` table, `p` partitioned, `v` view, `f` foreign. A hypertable is partitioned.
        storage: what holds its rows.
    """

    oid: int
    schema: str
    name: str
    kind: str
    storage: Storage

    @property
    def label(self) -> str:
        """`schema.name`, for people."""
        return f"{self.schema}.{self.name}"

    @property
    def is_spread(self) -> bool:
        """Whether its rows are in several tables, so that `ctid` does not tell one from all others, and constraints may
        go by other names there."""
        return self.kind == "p" or self.storage is Storage.SHARDS

    @property
    def own_parts(self) -> dict[str, int]:
        """What `PARTS` needs to know."""
        return {"oid": self.oid, "chunks_of": self.oid if self.storage is Storage.CHUNKS else 0}


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key of another table that points at the target."""

    name: str
    table: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A rewrite rule, which puts other statements in the place of some.

    Attributes:
        name, table: as SQL has them, quoted where needed.
        event: INSERT, UPDATE or DELETE.
        fires: it is not turned off.
    """

    name: str
    table: str
    event: str
    fires: bool


@dataclass(frozen=True, slots=True)
class Target(Relation):
    """A table that rows go into.

    Attributes:
        keys: the primary key, if there is one, then the other unique indexes.
        references: foreign keys of other tables that point at it, or at a partition of it. To a partition, the table
            that it is of is another one.
        rules: its own, and of a view that the server writes through also those of what is behind it.
        has_children: other tables inherit from it. Partitions do not count.
        before_triggers: row triggers, of it or of a partition, that may change a row, or drop it, before it is written.
        keeps_rows: a row trigger of it, or of a partition, may keep a row that is to be deleted.
        filtered: row-level security hides rows from this user.
        refers_to_itself: its rows may need others of it to be there, or of the table that it is a partition of.
        readable: this user may SELECT all of its columns, those of the system among them.
        divided_by: the column by whose values Citus divides the rows among shards, if it does.
    """

    columns: tuple[TargetColumn, ...]
    keys: tuple[UniqueKey, ...]
    references: tuple[Reference, ...]
    rules: tuple[Rule, ...]
    has_children: bool
    before_triggers: tuple[str, ...]
    keeps_rows: bool
    filtered: bool
    refers_to_itself: bool
    readable: bool
    divided_by: str | None = None

    @property
    def readable_names(self) -> list[str]:
        """Of the columns that this user may SELECT."""
        return [column.name for column in self.columns if column.readable]

    def column(self, name: str) -> TargetColumn | None:
        """The column of exactly this name."""
        return next((column for column in self.columns if column.name == name), None)

    def table(self, names: Sequence[str] | None = None) -> Table:
        """The table for Core statements, with all columns or these ones. Its types only name themselves: values travel
        as text or come from columns."""
        wanted = [column.name for column in self.columns] if names is None else names
        types = {column.name: column.server_type for column in self.columns}
        return Table(self.name, MetaData(), *(Column(name, types[name]) for name in wanted), schema=self.schema)


class ServerType(UserDefinedType[Any]):
    """A type that only the server knows. Values are bound without a cast, so that the server reads them as it would a
    literal in that column's place: by the column type's own input function."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        """The type's name in DDL."""
        return self.name


# Types to which it is all one whether a modifier comes in while a text is read, as in COPY, or right after, as in
# INSERT. It is not to an interval (`5` is 5 hours to `interval hour`) and a numeric (1e-20000 fits in a numeric(5,2)).
_CUT_ALIKE = frozenset({"varchar", "bpchar", "bit", "varbit", "time", "timetz", "timestamp", "timestamptz"})


class ModifiedType(ServerType):
    """A type whose input function has to know the modifier.

    A parameter's type has none, a cast's comes too late. A column of `json_to_record` is read with its modifier; for
    50 000 rows/s that costs a tenth.
    """

    cache_ok = True

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        """A subquery of one value: the bound text as the input function reads it."""
        document = func.json_build_object("v", cast(bindvalue, Text))
        record = func.json_to_record(document).table_valued(column("v", ServerType(self.name)))
        return select(record.render_derived(with_types=True).c.v).scalar_subquery()


# The oids of a relation and all of its partitions or chunks, which stand in no partition tree.
PARTS = """
    WITH parts (part) AS (
        SELECT CAST(:oid AS oid)
      UNION
        SELECT relid::oid FROM pg_catalog.pg_partition_tree(CAST(CAST(:oid AS oid) AS regclass))
      UNION
        SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = CAST(:chunks_of AS oid)
    )
"""

_FIND = text(
    """
    WITH named AS (
        SELECT class.oid, namespace.nspname AS schema, class.relname AS name, class.relkind AS kind,
               array_position(CAST(:path AS text[]), namespace.nspname::text) AS place
        FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE class.relname = :name AND class.relkind IN ('r', 'p', 'v', 'f', 'm')
          AND (namespace.nspname = :schema OR CAST(:schema AS text) IS NULL)
          AND namespace.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
          AND NOT pg_is_other_temp_schema(namespace.oid)
    )
    SELECT *, """  # noqa: S608  # put together from two constants
    + EXTENSIONS
    + """
    FROM named ORDER BY place, schema
"""
)

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
           bases.oid AS base_oid, bases.typname AS base, bases.modifier, bases.typtype AS kind,
           attribute.attnotnull OR bases.not_null AS not_null,
           (attribute.attnotnull OR bases.not_null) AND NOT attribute.atthasdef AND attribute.attidentity = ''
               AND NOT EXISTS (SELECT FROM pg_type AS declared
                               WHERE declared.oid = attribute.atttypid AND declared.typdefault IS NOT NULL) AS required,
           attribute.attgenerated <> '' AS generated,
           attribute.attidentity = 'a' AS always_identity,
           sequence.name AS sequence,
           CASE WHEN NOT pg_collation.collisdeterministic THEN pg_collation.oid::regcollation::text END AS folding,
           (SELECT ARRAY[namespace.nspname::text, send.proname::text]
            FROM pg_type AS type JOIN pg_proc AS send ON send.oid = type.typsend
            JOIN pg_namespace AS namespace ON namespace.oid = send.pronamespace
            WHERE type.oid = bases.oid
              -- Text is converted when it is sent, and not all can be.
              AND (getdatabaseencoding() = 'UTF8' OR type.typcategory NOT IN ('A', 'C', 'S', 'U'))
              AND NOT EXISTS (SELECT FROM pg_type AS part
                              WHERE part.typsend = 0 AND (part.typarray = type.oid OR part.oid IN (
                                        SELECT atttypid FROM pg_attribute
                                        WHERE attrelid = type.typrelid AND attnum > 0 AND NOT attisdropped)))
           ) AS send,
           has_column_privilege(attribute.attrelid, attribute.attnum, 'SELECT') AS readable
    FROM pg_attribute AS attribute JOIN bases ON bases.attnum = attribute.attnum AND bases.typtype <> 'd'
    LEFT JOIN pg_collation ON pg_collation.oid = attribute.attcollation
    LEFT JOIN pg_attrdef AS filled ON filled.adrelid = attribute.attrelid AND filled.adnum = attribute.attnum
    LEFT JOIN LATERAL (
        -- An identity column owns its sequence; a default depends on the one that it names.
        SELECT max(namespace.nspname || '.' || class.relname) AS name
        FROM pg_depend AS depends JOIN pg_class AS class
             ON class.relkind = 'S'
            AND (depends.classid = 'pg_class'::regclass AND depends.objid = class.oid
                 AND depends.refclassid = 'pg_class'::regclass AND depends.refobjid = attribute.attrelid
                 AND depends.refobjsubid = attribute.attnum AND depends.deptype = 'i'
              OR depends.classid = 'pg_attrdef'::regclass AND depends.objid = filled.oid
                 AND depends.refclassid = 'pg_class'::regclass AND depends.refobjid = class.oid)
        JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
        WHERE (depends.refclassid, depends.refobjid) = ('pg_class'::regclass, attribute.attrelid)
           OR (depends.classid, depends.objid) = ('pg_attrdef'::regclass, filled.oid)
    ) AS sequence ON attribute.atthasdef OR attribute.attidentity <> ''
    WHERE attribute.attrelid = :oid
    ORDER BY attribute.attnum
""")

# The types that the table's columns are made of, at every depth.
_TYPES = text("""
    WITH RECURSIVE used AS (
        SELECT atttypid AS oid FROM pg_attribute WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped
      UNION
        SELECT part.oid
        FROM used JOIN pg_type AS type ON type.oid = used.oid
        CROSS JOIN LATERAL (
            SELECT type.typbasetype AS oid WHERE type.typtype = 'd'
          UNION ALL
            SELECT element.oid FROM pg_type AS element WHERE element.typarray = type.oid
          UNION ALL
            SELECT atttypid FROM pg_attribute WHERE attrelid = type.typrelid AND attnum > 0 AND NOT attisdropped
        ) AS part
    )
    SELECT type.oid, format_type(type.oid, NULL) AS label, type.typname AS name, type.typtype AS kind,
           type.typbasetype AS basis, type.typtypmod AS modifier, element.oid AS element,
           ARRAY(SELECT attname::text FROM pg_attribute
                 WHERE attrelid = type.typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS names,
           ARRAY(SELECT format_type(atttypid, atttypmod) FROM pg_attribute
                 WHERE attrelid = type.typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS labels,
           ARRAY(SELECT ARRAY[atttypid::bigint, atttypmod] FROM pg_attribute
                 WHERE attrelid = type.typrelid AND attnum > 0 AND NOT attisdropped ORDER BY attnum) AS types
    FROM used JOIN pg_type AS type ON type.oid = used.oid
    LEFT JOIN pg_type AS element ON element.typarray = type.oid
""")

_KEYS = text("""
    SELECT class.relname AS name, index.indisprimary AS is_primary,
           CASE WHEN NOT index.indimmediate THEN 'deferrable'
                WHEN index.indisexclusion THEN 'WITHOUT OVERLAPS'
                WHEN bool_or(attribute.attgenerated <> '') THEN 'generated by the database'
                -- Rows of one key are found by PARTITION BY, which goes by the type's own equality.
                WHEN bool_or(member.amopopr IS DISTINCT FROM usual.amopopr) THEN 'compared in a way of its own'
                END AS obstacle,
           NOT index.indnullsnotdistinct AS nulls_distinct,
           pg_get_expr(index.indpred, index.indrelid) AS condition,
           array_agg(CASE WHEN part.collation_oid <> attribute.attcollation
                          THEN format('%I COLLATE %s', attribute.attname, part.collation_oid::regcollation)
                          ELSE coalesce(attribute.attname::text,
                                        pg_get_indexdef(index.indexrelid, part.position::int, false))
                     END ORDER BY part.position) AS texts,
           array_agg(attribute.attname IS NOT NULL AND part.collation_oid = attribute.attcollation
                     ORDER BY part.position) AS are_columns,
           array_agg(format('%s%s %s.%I',
                            coalesce(quote_ident(attribute.attname),
                                     format('(%s)', pg_get_indexdef(index.indexrelid, part.position::int, false))),
                            ' COLLATE ' || nullif(part.collation_oid, 0)::regcollation,
                            opclass.opcnamespace::regnamespace, opclass.opcname)
                     ORDER BY part.position) AS arbiters,
           -- Of btree the third strategy is equality; no other method has unique indexes of the plain kind.
           array_agg(format('OPERATOR(%s.%s)', operator.oprnamespace::regnamespace, operator.oprname)
                     ORDER BY part.position) AS equalities,
           (SELECT conname FROM pg_constraint
            WHERE conindid = index.indexrelid AND conrelid = :oid AND contype IN ('p', 'u')) AS constraint,
           ARRAY(SELECT DISTINCT used.attname::text
                 FROM pg_depend AS depends JOIN pg_attribute AS used
                      ON used.attrelid = depends.refobjid AND used.attnum = depends.refobjsubid
                 WHERE (depends.classid, depends.objid) = ('pg_class'::regclass, index.indexrelid)
                   AND (depends.refclassid, depends.refobjid) = ('pg_class'::regclass, index.indrelid)
                   AND used.attnum <> ALL ((index.indkey::int2[])[index.indnkeyatts:])) AS depends_on
    FROM pg_index AS index
    JOIN pg_class AS class ON class.oid = index.indexrelid
    CROSS JOIN LATERAL unnest(index.indkey::int2[], index.indcollation::oid[], index.indclass::oid[])
         WITH ORDINALITY AS part (attnum, collation_oid, opclass_oid, position)
    LEFT JOIN pg_opclass AS opclass ON opclass.oid = part.opclass_oid
    LEFT JOIN pg_amop AS member ON member.amopfamily = opclass.opcfamily AND member.amopstrategy = 3
         AND member.amoppurpose = 's'
         AND (member.amoplefttype, member.amoprighttype) = (opclass.opcintype, opclass.opcintype)
    LEFT JOIN pg_operator AS operator ON operator.oid = member.amopopr
    LEFT JOIN LATERAL (
        SELECT own.amopopr FROM pg_opclass AS base JOIN pg_amop AS own ON own.amopfamily = base.opcfamily
        WHERE base.opcmethod = opclass.opcmethod AND base.opcintype = opclass.opcintype AND base.opcdefault
          AND own.amopstrategy = 3 AND own.amoppurpose = 's'
          AND (own.amoplefttype, own.amoprighttype) = (opclass.opcintype, opclass.opcintype)
    ) AS usual ON true
    LEFT JOIN pg_attribute AS attribute
           ON attribute.attrelid = index.indrelid AND attribute.attnum = part.attnum AND part.attnum > 0
    WHERE index.indrelid = :oid AND index.indisunique AND index.indisvalid AND part.position <= index.indnkeyatts
    GROUP BY index.indexrelid, class.relname
    ORDER BY index.indisprimary DESC, index.indexrelid
""")

# Of triggers, the bits of tgtype: 1 for each row, 2 before, 4 at INSERT, 8 at DELETE, 16 at UPDATE.
_BEHAVIOUR = text("""
    SELECT relkind <> 'p' AND oid <> ALL (CAST(:hypertables AS oid[]))
               AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = :oid) AS has_children,
           row_security_active(oid) AS filtered,
           has_table_privilege(oid, 'SELECT') AS readable,
           ARRAY(SELECT DISTINCT tgname::text FROM pg_trigger
                 WHERE (tgrelid = :oid OR tgrelid IN (SELECT relid FROM pg_partition_tree(CAST(:oid AS oid))))
                   AND tgenabled <> 'D' AND tgtype & 3 = 3 AND tgtype & 20 <> 0
                   -- TimescaleDB's own keeps rows out of the hypertable itself.
                   AND NOT EXISTS (SELECT FROM pg_depend AS belongs
                                   JOIN pg_extension AS extension ON extension.oid = belongs.refobjid
                                   WHERE (belongs.classid, belongs.objid) = ('pg_proc'::regclass, tgfoid)
                                     AND belongs.refclassid = 'pg_extension'::regclass AND belongs.deptype = 'e'
                                     AND extension.extname = 'timescaledb')) AS before_triggers,
           EXISTS (SELECT FROM pg_trigger
                   WHERE (tgrelid = :oid OR tgrelid IN (SELECT relid FROM pg_partition_tree(CAST(:oid AS oid))))
                     AND tgenabled <> 'D' AND tgtype & 11 = 11) AS keeps_rows,
           EXISTS (SELECT FROM pg_constraint
                   WHERE contype = 'f'
                     AND (conrelid = :oid OR conrelid IN (SELECT relid FROM pg_partition_tree(CAST(:oid AS oid))))
                     AND (confrelid = :oid OR confrelid IN (SELECT relid FROM pg_partition_tree(CAST(:oid AS oid)))
                          OR confrelid IN (SELECT relid FROM pg_partition_ancestors(CAST(:oid AS oid))))
                  ) AS refers_to_itself,
           (WITH RECURSIVE own (oid) AS (
                SELECT CAST(:oid AS oid)
              UNION
                SELECT relid::oid FROM pg_partition_tree(CAST(:oid AS oid))
            ), met AS (
                -- What points at a partition mostly was declared for the table that it is of.
                SELECT oid, conparentid FROM pg_constraint
                WHERE contype = 'f' AND confrelid IN (SELECT oid FROM own) AND conrelid NOT IN (SELECT oid FROM own)
                  -- Chunks have copies of the hypertable's, with no parent.
                  AND conrelid NOT IN (SELECT inhrelid FROM pg_inherits
                                       WHERE inhparent = ANY (CAST(:hypertables AS oid[])))
              UNION
                SELECT above.oid, above.conparentid
                FROM met JOIN pg_constraint AS above ON above.oid = met.conparentid
            )
            SELECT json_agg(pointing ORDER BY pointing."table", pointing.name)
            FROM (SELECT conname::text AS name, namespace.nspname || '.' || class.relname AS "table"
                  FROM met JOIN pg_constraint AS reference ON reference.oid = met.oid
                  JOIN pg_class AS class ON class.oid = reference.conrelid
                  JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
                  WHERE met.conparentid = 0) AS pointing) AS pointing,
           (WITH RECURSIVE written AS (
                SELECT CAST(:oid AS oid) AS oid
              UNION
                -- A view is written through, unless its own trigger (tgtype 64) says what to do.
                SELECT depends.refobjid
                FROM written JOIN pg_class AS class ON class.oid = written.oid AND class.relkind = 'v'
                JOIN pg_rewrite AS rule ON rule.ev_class = class.oid AND rule.ev_type = '1'
                JOIN pg_depend AS depends ON depends.classid = 'pg_rewrite'::regclass AND depends.objid = rule.oid
                                         AND depends.refclassid = 'pg_class'::regclass
                WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = class.oid AND tgtype & 64 <> 0)
            )
            SELECT json_agg(met ORDER BY met."table", met.name)
            FROM (SELECT quote_ident(rule.rulename) AS name,
                         format('%I.%I', namespace.nspname, class.relname) AS "table",
                         CASE rule.ev_type WHEN '2' THEN 'UPDATE' WHEN '3' THEN 'INSERT' ELSE 'DELETE' END AS event,
                         rule.ev_enabled IN ('A', CASE current_setting('session_replication_role')
                                                  WHEN 'replica' THEN 'R' ELSE 'O' END) AS fires
                  FROM written JOIN pg_class AS class ON class.oid = written.oid
                  JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
                  JOIN pg_rewrite AS rule ON rule.ev_class = class.oid AND rule.ev_type IN ('2', '3', '4')
                 ) AS met) AS rules
    FROM pg_class WHERE oid = :oid
""")


def split_name(name: str, *, folds: bool = False) -> tuple[str | None, str]:
    """`[schema.]table` → its parts. Double quotes keep dots inside a part, as in SQL; `""` is a quote. What has no
    quotes becomes lower case if it `folds`.

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
            current += character.lower() if folds and not inside else character
        position += 1
    parts.append(current)
    if inside or not all(parts) or len(parts) > 2:
        raise UsageError(f"{name!r} is not a table name", code="bad_name", hint="Write schema.table, or just table.")
    return (parts[0], parts[1]) if len(parts) == 2 else (None, parts[0])


def find_target(connection: Connection, name: str) -> Target:
    """The table that `[schema.]table` names, described.

    Raises:
        TargetError: as `find_relation`.
    """
    return described(connection, find_relation(connection, name))


def find_relation(connection: Connection, name: str) -> Relation:
    """What `[schema.]table` names: as written, else folded to lower case as SQL does; a bare name also where
    it is not on the search path, if it stands in one schema only.

    Raises:
        TargetError: there is none, or there are several.
    """
    schema, table = split_name(name)
    for spelling in dict.fromkeys([(schema, table), (schema and schema.lower(), table.lower())]):
        given = {"schema": spelling[0], "name": spelling[1], "path": list(users_path(connection).schemas)}
        found = connection.execute(_FIND, given).all()
        if len(found) > 1 and found[0].place is None:
            places = ", ".join(f"{row.schema}.{row.name}" for row in found)
            raise TargetError(
                f"{name} is in several schemas: {places}", code="ambiguous_table", hint="Name the schema."
            )
        if found:
            row = found[0]
            remember_extensions(connection, row)
            storage = kept_in(connection, row.oid)
            kind = "p" if storage is Storage.CHUNKS else row.kind
            return Relation(row.oid, row.schema, row.name, kind, storage)
    raise TargetError(
        f"there is no table {name}", code=UNDEFINED_TABLE, hint=_nearest(connection, name) or "See `harborctl tables`."
    )


def described(connection: Connection, found: Relation) -> Target:
    """The columns, keys and habits of a table."""
    of_it = {"oid": found.oid}
    behaviour = dict(connection.execute(_BEHAVIOUR, of_it | {"hypertables": hypertables(connection)}).mappings().one())
    return Target(
        oid=found.oid,
        schema=found.schema,
        name=found.name,
        kind=found.kind,
        storage=found.storage,
        divided_by=divided_by(connection, found.oid) if found.storage is Storage.SHARDS else None,
        columns=_columns(connection, of_it),
        keys=tuple(_key(row) for row in connection.execute(_KEYS, of_it)),
        references=tuple(Reference(**reference) for reference in behaviour.pop("pointing") or ()),
        before_triggers=tuple(behaviour.pop("before_triggers")),
        rules=tuple(Rule(**rule) for rule in behaviour.pop("rules") or ()),
        **behaviour,
    )


def _columns(connection: Connection, of_it: dict[str, int]) -> tuple[TargetColumn, ...]:
    rows = [dict(row) for row in connection.execute(_COLUMNS, of_it).mappings()]
    oids = [row.pop("base_oid") for row in rows]
    columns = tuple(TargetColumn(**{**row, "send": row["send"] and tuple(row["send"])}) for row in rows)
    if not any(column.kind == "c" or column.base.startswith("_") for column in columns):
        return columns
    known = {row.oid: row for row in connection.execute(_TYPES, of_it)}
    return tuple(_with_parts(column, oid, known) for column, oid in zip(columns, oids, strict=True))


def _with_parts(column: TargetColumn, oid: int, known: dict[int, Any]) -> TargetColumn:
    """The column, whose type this is, and what it is made of."""
    found = known[oid]
    if found.element is not None:
        label = column.type.removesuffix("[]") if column.type.endswith("[]") else known[found.element].label
        return replace(column, element=_part("", label, found.element, column.modifier, known))
    attributes = zip(found.names, found.labels, found.types, strict=True)
    parts = (_part(name, label, oid, modifier, known) for name, label, (oid, modifier) in attributes)
    return replace(column, attributes=tuple(parts))


def _part(name: str, label: str, oid: int, modifier: int, known: dict[int, Any]) -> TargetColumn:
    """An element or attribute, as if it were a column of its own."""
    while known[oid].kind == "d":
        oid, modifier = known[oid].basis, known[oid].modifier
    found = known[oid]
    part = TargetColumn(
        name=name,
        type=label,
        base=found.name,
        modifier=modifier,
        kind=found.kind,
        not_null=False,
        required=False,
        generated=False,
        always_identity=False,
        sequence=None,
        folding=None,
    )
    return _with_parts(part, oid, known)


def _key(row: Any) -> UniqueKey:
    parts = tuple(KeyPart(*part) for part in zip(row.texts, row.are_columns, row.arbiters, row.equalities, strict=True))
    plain = {part.text for part in parts if part.is_column}
    is_plain = row.condition is None and all(row.are_columns)
    return UniqueKey(
        name=row.name,
        parts=parts,
        constraint=row.constraint,
        condition=row.condition,
        columns=tuple(sorted(plain if is_plain else plain | set(row.depends_on))),
        nulls_distinct=row.nulls_distinct,
        obstacle=row.obstacle,
        is_primary=row.is_primary,
    )


def _nearest(connection: Connection, name: str) -> str | None:
    tables = connection.execute(_ALL_NAMES).all()
    spellings = {row.relname: f"{row.nspname}.{row.relname}" for row in tables}
    spellings.update({full: full for full in spellings.values()})
    match = nearest(name, list(spellings))
    return f"Did you mean {spellings[match]}?" if match else None
