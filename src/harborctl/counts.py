"""How many rows are in a table: estimated in time that does not grow with it, or counted.

An estimate comes from the best of these that there is, and says which:

- `file size`: without a page there is no row
- `analyze`: rows per page as ANALYZE or VACUUM last saw them (pg_class.reltuples / relpages), times today's pages.
  It is what the planner does; https://www.postgresql.org/docs/current/row-estimation-examples.html
- `live rows`: never analyzed, but the server has counted what came and went (pg_stat_get_live_tuples)
- `planner`: neither; what the planner makes of the columns' widths, or of a view's query

The statement reads the catalogs and file sizes only; nothing here prints.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, func, select, table, text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ClauseElement, quoted_name
from sqlalchemy.sql.expression import Executable

from harborctl.db.catalog import find_target
from harborctl.db.failures import translated
from harborctl.errors import AccessDenied

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine
    from sqlalchemy.sql.compiler import SQLCompiler

    from harborctl.db.catalog import Target


class Method(StrEnum):
    """How a number was found."""

    ESTIMATE = "estimate"
    EXACT = "exact"


class Basis(StrEnum):
    """What an estimate stands on, the surest first."""

    FILE_SIZE = "file size"
    ANALYZE = "analyze"
    LIVE_ROWS = "live rows"
    PLANNER = "planner"


@dataclass(frozen=True, slots=True)
class TableCount:
    """How many rows a table has.

    Attributes:
        table: `schema.name`.
        low, high: what the truth lies between; None if nothing is known about that.
        analyzed_at: when all its parts had been analyzed; None if one never was.
        changed_since: rows inserted, updated and deleted since then, as the server counts them; None for a view.
        basis: of an estimate.
    """

    table: str
    rows: int
    method: Method
    low: int | None
    high: int | None
    analyzed_at: datetime | None
    changed_since: int | None
    basis: Basis | None


def count_tables(engine: Engine, names: Sequence[str], *, exact: bool = False) -> list[TableCount]:
    """The count of each table, in the order of `names` (`[schema.]table`, as SQL writes it).

    Raises:
        TargetError: there is no such table.
        AccessDenied: this user may not read it.
    """
    with translated(), engine.connect() as connection:
        connection.execution_options(postgresql_readonly=True)
        # All are looked up before the first is counted: a wrong name is not found out after minutes.
        targets = [find_target(connection, name) for name in names]
        for target in targets:
            _require_access(connection, target)
        return [_count(connection, target, exact=exact) for target in targets]


_MAY_READ = text("""
    SELECT has_schema_privilege(relnamespace, 'USAGE') AND has_any_column_privilege(oid, 'SELECT')
    FROM pg_class WHERE oid = :oid
""")


def _require_access(connection: Connection, target: Target) -> None:
    if not connection.execute(_MAY_READ, {"oid": target.oid}).scalar_one():
        raise AccessDenied(
            f"this database user may not read {target.label}", hint="Ask its owner to GRANT SELECT on it to you."
        )


# A table, its partitions and what inherits from it: what a SELECT from it reads.
_PARTS = text("""
    WITH RECURSIVE parts AS (
        SELECT CAST(:oid AS oid) AS oid
      UNION
        SELECT child.inhrelid FROM pg_inherits AS child JOIN parts ON parts.oid = child.inhparent
    )
    SELECT namespace.nspname AS schema, class.relname AS name, class.relkind AS kind,
           class.reltuples AS rows_then, class.relpages AS pages_then,
           CASE WHEN class.relkind IN ('r', 'm')
                THEN pg_relation_size(class.oid) / current_setting('block_size')::bigint ELSE 0 END AS pages_now,
           pg_stat_get_live_tuples(class.oid) AS live_rows,
           greatest(pg_stat_get_last_analyze_time(class.oid),
                    pg_stat_get_last_autoanalyze_time(class.oid)) AS analyzed_at,
           pg_stat_get_mod_since_analyze(class.oid) AS changed
    FROM parts
    JOIN pg_class AS class ON class.oid = parts.oid
    JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    WHERE class.relkind <> 'p'
""")


def _count(connection: Connection, target: Target, *, exact: bool) -> TableCount:
    parts = connection.execute(_PARTS, {"oid": target.oid}).all()
    analyzed = [part.analyzed_at for part in parts]
    stored = [part for part in parts if part.kind in ("r", "m")]
    basis = None
    if exact:
        rows = connection.execute(select(func.count()).select_from(_named(target.schema, target.name))).scalar_one()
    else:
        estimates = [_estimate(connection, part) for part in parts]
        rows = sum(estimate for estimate, _ in estimates)
        # A sum is as sure as the least sure of its parts.
        basis = max((basis for _, basis in estimates), key=list(Basis).index, default=Basis.FILE_SIZE)
    return TableCount(
        table=target.label,
        rows=rows,
        method=Method.EXACT if exact else Method.ESTIMATE,
        low=rows if exact else None,
        high=rows if exact else None,
        analyzed_at=min(analyzed) if analyzed and None not in analyzed else None,
        changed_since=sum(part.changed for part in stored) if stored else None,
        basis=basis,
    )


def _estimate(connection: Connection, part: Any) -> tuple[int, Basis]:
    """The rows of one part that has no parts of its own."""
    if part.kind in ("r", "m") and part.pages_now == 0:
        return 0, Basis.FILE_SIZE
    if part.kind == "f" and part.rows_then >= 0:
        return round(part.rows_then), Basis.ANALYZE
    if part.rows_then >= 0 and part.pages_then > 0:
        return round(part.rows_then / part.pages_then * part.pages_now), Basis.ANALYZE
    # Never analyzed, or only while it was empty.
    if part.live_rows > 0:
        return part.live_rows, Basis.LIVE_ROWS
    named = _named(part.schema, part.name)
    query = select(text("1")).select_from(named)
    if part.kind == "r":
        query = query.with_hint(named, "ONLY")  # what inherits from it is a part of its own
    planned = _planned_rows(connection, query)
    if part.kind in ("r", "m") and part.rows_then < 0:
        # The planner takes a small table that was never analyzed for 10 pages: plancat.c, estimate_rel_size().
        planned = planned * part.pages_now / max(part.pages_now, 10)
    return round(planned), Basis.PLANNER


def _named(schema: str, name: str) -> Any:
    """The table of exactly this name, for a Core statement."""
    return table(quoted_name(name, quote=True), schema=quoted_name(schema, quote=True))


class _Explained(Executable, ClauseElement):
    """EXPLAIN of a statement, which it does not run."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explained)
def _explain(element: _Explained, compiler: SQLCompiler, **options: Any) -> str:
    return "EXPLAIN (FORMAT JSON) " + compiler.process(element.statement, **options)


def _planned_rows(connection: Connection, statement: Select[Any]) -> float:
    [document] = connection.execute(_Explained(statement)).scalars()
    plan = json.loads(document) if isinstance(document, str) else document
    return float(plan[0]["Plan"]["Plan Rows"])
