"""How many rows are in a table: estimated in time that does not grow with it, sampled, or counted.

An estimate comes from the best of these that there is, and says which:

- `file size`: without a page there is no row
- `live rows`: what the server has counted since ANALYZE or VACUUM (pg_stat_get_live_tuples). Rows of transactions that
  are open or were rolled back, and rows that are deleted and not vacuumed away, are not in it, though pages hold them.
- `analyze`: nothing has changed since, or the server's counters are gone, as after a crash and on a standby: rows per
  page as ANALYZE or VACUUM last saw them (pg_class.reltuples / relpages), times today's pages. It is what the planner
  does; https://www.postgresql.org/docs/current/row-estimation-examples.html
- `shards`: the same as `analyze`, asked of every shard of a Citus table
- `planner`: none of these; what the planner makes of the columns' widths, of a view's query, or of a condition

Estimates read the catalogs and file sizes only; nothing here prints.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, Select, bindparam, select, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.expression import Executable

from harborctl.counts.engines import distributed, rows_on_shards
from harborctl.counts.result import Basis, CountOptions
from harborctl.counts.sample import MOST_ROWS
from harborctl.db.relations import (
    condition,
    quoted,
)
from harborctl.db.search_path import on_users_path
from harborctl.db.storage import compressed_rows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection
    from sqlalchemy.sql.compiler import SQLCompiler

    from harborctl.db.relations import Relation


# A table, its partitions and what inherits from it: what a SELECT from it reads.
_PARTS = text("""
    WITH RECURSIVE parts AS (
        SELECT CAST(:oid AS oid) AS oid
      UNION
        SELECT child.inhrelid FROM pg_inherits AS child JOIN parts ON parts.oid = child.inhparent
    )
    SELECT class.oid, namespace.nspname AS schema, class.relname AS name, class.relkind AS kind,
           class.reltuples AS rows_then, class.relpages AS pages_then,
           CASE WHEN class.relkind IN ('r', 'm')
                THEN pg_relation_size(class.oid) / current_setting('block_size')::bigint ELSE 0 END AS pages_now,
           pg_stat_get_live_tuples(class.oid) AS live_rows,
           coalesce(pg_stat_get_last_analyze_time(class.oid), pg_stat_get_last_autoanalyze_time(class.oid),
                    pg_stat_get_last_vacuum_time(class.oid), pg_stat_get_last_autovacuum_time(class.oid))
             IS NOT NULL AS is_watched,
           greatest(pg_stat_get_last_analyze_time(class.oid),
                    pg_stat_get_last_autoanalyze_time(class.oid)) AS analyzed_at,
           pg_stat_get_mod_since_analyze(class.oid) AS changed
    FROM parts
    JOIN pg_class AS class ON class.oid = parts.oid
    JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    WHERE class.relkind <> 'p'
""")


def parts_of(connection: Connection, relation: Relation, *, citus: bool) -> tuple[Sequence[Any], frozenset[int]]:
    """The parts of the table, and those of them that Citus keeps on other servers."""
    parts = connection.execute(_PARTS, {"oid": relation.oid}).all()
    return parts, distributed(connection, relation, parts) if citus else frozenset()


def expected_rows(connection: Connection, relation: Relation, options: CountOptions, *, citus: bool) -> int:
    """About how many rows an exact count will find."""
    # What an estimate sets for itself would take the parallel plan from the count that follows.
    with connection.begin_nested() as aside:
        rows, _ = estimated_rows(connection, relation, options.where, *parts_of(connection, relation, citus=citus))
        aside.rollback()
    return rows


def estimated_rows(
    connection: Connection, relation: Relation, where: str | None, parts: Sequence[Any], spread: frozenset[int]
) -> tuple[int, Basis]:
    """The rows of all parts, or those that meet a condition. A sum is as sure as the least sure of them."""
    compressed = compressed_rows(connection)
    if where is not None:
        elsewhere = spread | frozenset(compressed)
        if all(part.kind in ("r", "m") and part.pages_now == 0 and part.oid not in elsewhere for part in parts):
            return 0, Basis.FILE_SIZE
        return round(_planned(connection, relation, where)["Plan Rows"]), Basis.PLANNER
    estimates: list[tuple[float, Basis]] = []
    unknown = []
    for part in parts:
        estimate = rows_on_shards(connection, part) if part.oid in spread else _from_catalog(part)
        if part.oid in compressed:  # what is on its pages has come later
            later, _ = estimate or (part.live_rows, Basis.LIVE_ROWS)
            estimates.append((compressed[part.oid] + later, Basis.ANALYZE))
        elif estimate is None:
            unknown.append(part)
        else:
            estimates.append(estimate)
    if unknown:
        # One plan of the whole, not one of each part: a user may be allowed to read the parts through it only.
        plan = _planned(connection, relation, None)
        if relation.kind == "v" and _is_empty(plan, frozenset(connection.execute(_EMPTY, _named(plan)).scalars())):
            return 0, Basis.FILE_SIZE
        alone = len(parts) == 1
        planned = {_place(unknown[0]): float(plan["Plan Rows"])} if alone else _rows_by_table(plan)
        estimates += [(_without_padding(part, planned.get(_place(part), 0.0)), Basis.PLANNER) for part in unknown]
    basis = max((basis for _, basis in estimates), key=list(Basis).index, default=Basis.FILE_SIZE)
    return sum(round(rows) for rows, _ in estimates), basis


def _from_catalog(part: Any) -> tuple[float, Basis] | None:
    """The rows of one part that has no parts of its own, if the catalogs know enough."""
    if part.kind in ("r", "m") and part.pages_now == 0:
        return 0, Basis.FILE_SIZE
    if part.kind == "f" and part.rows_then >= 0:
        return part.rows_then, Basis.ANALYZE
    # No page holds more, whatever the statistics say.
    bound = part.pages_now * MOST_ROWS
    # The counters begin with a number that is right: at the last ANALYZE or VACUUM, or with the table.
    if part.is_watched and (part.changed or part.pages_now != part.pages_then):
        return min(part.live_rows, bound), Basis.LIVE_ROWS
    if part.rows_then >= 0 and part.pages_then > 0:
        return min(part.rows_then / part.pages_then * part.pages_now, bound), Basis.ANALYZE
    # Never analyzed, or only while it was empty.
    if part.live_rows > 0 or part.is_watched:
        return min(part.live_rows, bound), Basis.LIVE_ROWS
    return None


def _without_padding(part: Any, planned: float) -> float:
    if part.kind in ("r", "m") and part.rows_then < 0:
        # The planner takes a small table that was never analyzed for 10 pages: plancat.c, estimate_rel_size().
        return planned * min(1.0, int(part.pages_now) / 10)
    return planned


def _place(part: Any) -> tuple[str, str]:
    return part.schema, part.name


class _Explained(Executable, ClauseElement):
    """EXPLAIN of a statement, which it does not run."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explained)
def _explain(element: _Explained, compiler: SQLCompiler, **options: Any) -> str:
    return "EXPLAIN (VERBOSE, FORMAT JSON) " + compiler.process(element.statement, **options)


# A node below a Gather says how many rows one of several processes gets.
_ALONE = text("SELECT set_config('max_parallel_workers_per_gather', '0', true)")


def _planned(connection: Connection, relation: Relation, where: str | None) -> dict[str, Any]:
    """The topmost node of the plan that reads the table."""
    statement = select(bindparam("one", 1, Integer)).select_from(relation.named())
    if where is not None:
        statement = statement.where(condition(where))
    connection.execute(_ALONE)
    with on_users_path(connection):
        [document] = connection.execute(_Explained(statement)).scalars()
    [plan] = json.loads(document) if isinstance(document, str) else document
    node: dict[str, Any] = plan["Plan"]
    return node


# What has no row where nothing is below. A join has none where its outer side has none.
_PASSING = frozenset(
    {"Subquery Scan", "Hash", "Sort", "Incremental Sort", "Limit", "Unique", "Materialize", "Memoize", "WindowAgg"}
    | {"Append", "Merge Append", "LockRows", "Group", "Result"}
)


_JOINS = frozenset({"Hash Join", "Merge Join", "Nested Loop"})


_EMPTY = text("""
    SELECT named.name FROM unnest(CAST(:names AS text[])) AS named (name)
    JOIN pg_class AS class ON class.oid = to_regclass(named.name)
    WHERE class.relkind IN ('r', 'm') AND pg_relation_size(class.oid) = 0
""")


def _named(plan: dict[str, Any]) -> dict[str, list[str]]:
    return {"names": [quoted(*name) for name in _rows_by_table(plan)]}


def _is_empty(node: dict[str, Any], empty: frozenset[str]) -> bool:
    """Whether a plan can give no row, because tables have no page: the planner takes a new table for 10 pages."""
    kind = node["Node Type"]
    below = [one for one in node.get("Plans", ()) if one["Parent Relationship"] not in {"InitPlan", "SubPlan"}]
    if "Relation Name" in node:
        return quoted(node["Schema"], node["Relation Name"]) in empty
    if kind == "Aggregate":
        return bool(node.get("Group Key")) and all(_is_empty(one, empty) for one in below)
    if kind in _JOINS and node.get("Join Type") in {"Inner", "Semi"}:
        return any(_is_empty(one, empty) for one in below)
    if kind in _JOINS and node.get("Join Type") in {"Left", "Anti"}:
        return _is_empty(below[0], empty)
    return kind in _PASSING and bool(below) and all(_is_empty(one, empty) for one in below)


def _rows_by_table(node: dict[str, Any]) -> dict[tuple[str, str], float]:
    """The rows that each table of a plan gives, by schema and name."""
    if "Relation Name" in node:
        return {(node["Schema"], node["Relation Name"]): float(node["Plan Rows"])}
    rows = {}
    for below in node.get("Plans", ()):
        rows.update(_rows_by_table(below))
    return rows
