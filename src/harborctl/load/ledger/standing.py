"""The target as a load finds it: what a later load must know to tell whether rows of an earlier one can still be there.

Rows of a load are gone for certain if another that saw it committed found the target empty, or emptied it. They are in
if nothing has emptied the target since, and its storage is still there: TRUNCATE gives a table new files, and so does
whatever else rewrites it. Anything between cannot be known. Times would not do: two loads at once overlap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, cast, exists, func, literal, select, text

from harborctl.db.storage import Storage, hypertables
from harborctl.db.tables import LEDGER_SCHEMA, loads

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from harborctl.db.catalog import Target

# The target with its partitions or chunks; where it is a view, with the tables behind it.
_BELOW = """
    WITH RECURSIVE below (oid, kind) AS (
        SELECT oid, relkind FROM pg_class WHERE oid = :oid
        UNION
        SELECT class.oid, class.relkind FROM below CROSS JOIN LATERAL (
            SELECT inhrelid AS oid FROM pg_inherits
            WHERE inhparent = below.oid AND (below.kind = 'p' OR below.oid = ANY (CAST(:hypertables AS oid[])))
            UNION ALL
            SELECT depend.refobjid FROM pg_rewrite AS rule JOIN pg_depend AS depend ON depend.objid = rule.oid
            WHERE below.kind = 'v' AND rule.ev_class = below.oid
              AND depend.classid = 'pg_catalog.pg_rewrite'::regclass
              AND depend.refclassid = 'pg_catalog.pg_class'::regclass
        ) AS next JOIN pg_class AS class ON class.oid = next.oid
    )
"""
# A chunk goes by its oid: it gets new files when it is compressed, with its rows in it, and TRUNCATE drops it.
_STORAGE = text(
    _BELOW  # noqa: S608  # put together from two constants
    + """
    SELECT coalesce(array_agg(DISTINCT CASE WHEN is_chunk THEN oid ELSE pg_relation_filenode(oid) END::bigint), '{}')
    FROM below CROSS JOIN LATERAL (
        SELECT EXISTS (SELECT FROM pg_inherits
                       WHERE inhrelid = below.oid AND inhparent = ANY (CAST(:hypertables AS oid[]))) AS is_chunk
    ) AS known
    WHERE pg_relation_filenode(oid) IS NOT NULL
"""
)
_HAS_NO_PAGES = text(
    _BELOW  # noqa: S608  # likewise
    + "SELECT pg_current_snapshot()::text, coalesce(sum(pg_relation_size(oid)), 1) = 0 FROM below"
)
_MAY_READ = text("SELECT has_any_column_privilege(CAST(:oid AS oid), 'SELECT')")

# The ledger's table, if it is one that remembers files.
_LEDGER = text("""
    SELECT class.oid::bigint FROM pg_class AS class
    JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    JOIN pg_attribute AS attribute ON attribute.attrelid = class.oid
    WHERE namespace.nspname = :schema AND class.relname = :name AND attribute.attname = 'target_oid'
      AND NOT attribute.attisdropped
""")


@dataclass(frozen=True, slots=True)
class Standing:
    """The target at one moment, before a load writes to it.

    Attributes:
        snapshot: which transactions were over, as `pg_snapshot` writes it.
        empty: none of these has left a row.
        storage: the files that hold the rows, by number.
        ledger: the oid of `harborctl.loads`; None where that is of an older harborctl, which remembers no files.
    """

    target: Target
    snapshot: str
    empty: bool
    storage: tuple[int, ...]
    ledger: int | None


def standing_of(connection: Connection, target: Target) -> Standing:
    """The target as this transaction sees it now."""
    ledger = connection.execute(_LEDGER, {"schema": LEDGER_SCHEMA, "name": loads.name}).scalar_one_or_none()
    snapshot, empty = _emptiness(connection, target)
    return Standing(target, snapshot, empty, storage_of(connection, target), ledger)


def storage_of(connection: Connection, target: Target) -> tuple[int, ...]:
    """The numbers of the files that hold the target's rows."""
    return tuple(connection.execute(_STORAGE, _below(connection, target)).scalar_one())


def _below(connection: Connection, target: Target) -> dict[str, Any]:
    return {"oid": target.oid, "hypertables": hypertables(connection)}


def _emptiness(connection: Connection, target: Target) -> tuple[str, bool]:
    """A snapshot, and whether the target is empty in it, as far as this user can tell."""
    if not connection.execute(_MAY_READ, {"oid": target.oid}).scalar_one():
        snapshot, empty = connection.execute(_HAS_NO_PAGES, _below(connection, target)).one()
        # Rows of shards, and compressed ones, are not on pages of these tables.
        return snapshot, empty and target.storage is Storage.OWN
    table = target.table([])
    rows = select(literal(1)).select_from(table)
    rows = rows.with_hint(table, "ONLY", "postgresql") if target.has_children else rows
    seen = cast(func.pg_current_snapshot(), Text)
    if target.storage is Storage.SHARDS:  # with a subquery Citus would open a transaction on each server
        snapshot = connection.execute(select(seen)).scalar_one()
        return snapshot, connection.execute(rows.limit(1)).first() is None and not target.filtered
    snapshot, empty = connection.execute(select(seen, ~exists(rows.subquery()))).one()
    return snapshot, empty and not target.filtered
