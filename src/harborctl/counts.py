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
import math
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import Integer, Select, bindparam, func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.expression import Executable

from harborctl.db.failures import translated
from harborctl.db.page_sample import MOST_ROWS, Draws, PageSample, read_sample
from harborctl.db.relations import (
    KINDS,
    condition,
    find_relation,
    is_pattern,
    matching,
    quoted,
    require_one_expression,
)
from harborctl.db.search_path import on_users_path
from harborctl.errors import AccessDenied, ConnectionFailed, HarborctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Engine
    from sqlalchemy.sql.compiler import SQLCompiler

    from harborctl.db.relations import Relation


class Method(StrEnum):
    """How a number was found."""

    ESTIMATE = "estimate"
    EXACT = "exact"
    SAMPLE = "sample"


class Basis(StrEnum):
    """What an estimate stands on, the surest first."""

    FILE_SIZE = "file size"
    ANALYZE = "analyze"
    LIVE_ROWS = "live rows"
    SHARDS = "shards"
    PLANNER = "planner"


@dataclass(frozen=True, slots=True)
class CountOptions:
    """How to count; without any of these, estimate.

    Attributes:
        exact: count every row.
        sample: percent of the pages to count rows on.
        where: an SQL condition; only rows that meet it count.
        seed: of the sample: the same seed takes the same pages again.
    """

    exact: bool = False
    sample: float | None = None
    where: str | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class TableCount:
    """How many rows a table has.

    Attributes:
        table: `schema.name`.
        low, high: what the truth lies between, of a sample with a confidence of 95 %; None if nothing is known of that.
        analyzed_at: when all its parts had been analyzed; None if one never was.
        changed_since: rows inserted, updated and deleted since then, as the server counts them; None for a view.
        basis: of an estimate.
        pages: pages that were sampled.
    """

    table: str
    rows: int
    method: Method
    low: int | None
    high: int | None
    analyzed_at: datetime | None
    changed_since: int | None
    basis: Basis | None
    pages: int | None = None


@dataclass(frozen=True, slots=True)
class Counting:
    """A count that is about to begin.

    Attributes:
        table: `schema.name`.
        done: how many tables have been counted.
        tables: how many there are.
        expected: about how many rows an exact count will find; None for other methods.
    """

    table: str
    done: int
    tables: int
    expected: int | None


@dataclass(frozen=True, slots=True)
class Counts:
    """The counts, what a pattern matched but could not be counted, and what there is to say of others.

    Attributes:
        unreadable: this user may not read them.
        failed: why the others could not be counted, by table.
        notes: sentences about what was counted.
    """

    tables: list[TableCount]
    unreadable: list[str]
    failed: dict[str, HarborctlError] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def count_tables(
    engine: Engine,
    names: Sequence[str],
    options: CountOptions | None = None,
    on_table: Callable[[Counting], None] | None = None,
) -> Counts:
    """The count of each table, in the order of `names`.

    Args:
        engine: the database.
        names: `[schema.]table` as SQL writes it, or patterns such as `harbor.*`.
        options: how to count.
        on_table: is told the table that comes next.

    Raises:
        UsageError: the options contradict each other, or a view is to be sampled.
        TargetError: there is no such table.
        AccessDenied: this user may not read it.
    """
    options = options or CountOptions()
    _check(options)
    with translated(), engine.connect() as connection:
        connection.execution_options(postgresql_readonly=True)
        # All are looked up before the first is counted: a wrong name is not found out after minutes.
        relations, unreadable = _relations(connection, names)
        named = {find_relation(connection, name).oid for name in names if not is_pattern(name)}
        for relation in relations:
            if options.sample is not None and relation.oid in named:
                _require_pages(relation)
        citus = _has_citus(connection)
        counts: list[TableCount] = []
        failed: dict[str, HarborctlError] = {}
        for done, relation in enumerate(relations):
            try:
                with translated(), connection.begin_nested():
                    if on_table:
                        expected = _expected(connection, relation, options, citus=citus) if options.exact else None
                        on_table(Counting(relation.label, done, len(relations), expected))
                    counts.append(_count(connection, relation, options, citus=citus))
            except ConnectionFailed:
                raise
            except HarborctlError as error:
                if relation.oid in named:
                    raise
                failed[relation.label] = error
        if failed and not counts:
            raise next(iter(failed.values()))
        notes = [_of_policies(relation, options) for relation in relations if relation.row_security]
        return Counts(counts, unreadable, failed, notes)


def _of_policies(relation: Relation, options: CountOptions) -> str:
    if options.exact or options.sample is not None:
        return f"{relation.label} has row-level security: only rows that its policies show this user are counted"
    if options.where is not None:
        return f"{relation.label} has row-level security: the planner expects so many that its policies show this user"
    return (
        f"{relation.label} has row-level security: the estimate is of all rows, also of those that this user cannot see"
    )


def _check(options: CountOptions) -> None:
    if options.exact and options.sample is not None:
        raise UsageError("--exact and --sample contradict each other", hint="Give one of them.")
    if options.sample is not None and not 0 < options.sample <= 100:
        raise UsageError("--sample takes a percentage above 0 and up to 100", hint="1 is a good start.")
    if options.where is not None and not options.where.strip():
        raise UsageError("--where is empty", hint="Write a condition such as \"state = 'active'\".")


def _relations(connection: Connection, names: Sequence[str]) -> tuple[list[Relation], list[str]]:
    """What is to be counted, each table once, and what a pattern matched in vain."""
    found: dict[int, Relation] = {}
    unreadable: dict[str, None] = {}
    for name in names:
        relations = matching(connection, name) if is_pattern(name) else [find_relation(connection, name)]
        readable = [relation for relation in relations if relation.readable]
        if not readable:
            raise AccessDenied(
                f"this database user may not read {relations[0].label}",
                hint="Ask its owner to GRANT SELECT on it to you.",
            )
        unreadable.update((relation.label, None) for relation in relations if not relation.readable)
        for relation in readable:
            found.setdefault(relation.oid, relation)
    return list(found.values()), list(unreadable)


def _require_pages(relation: Relation) -> None:
    if relation.kind not in ("r", "p", "m"):
        raise UsageError(
            f"{relation.label} is a {KINDS[relation.kind]}, which has no pages to sample",
            code="bad_target",
            hint="Leave --sample out for an estimate, or take --exact.",
        )


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


def _count(connection: Connection, relation: Relation, options: CountOptions, *, citus: bool) -> TableCount:
    parts, spread = _parts(connection, relation, citus=citus)
    # What the coordinator keeps of a spread table is an empty shell: its statistics mean nothing.
    stored = [part for part in parts if part.kind in ("r", "m") and part.oid not in spread]
    analyzed = [part.analyzed_at for part in parts]
    whole = bool(analyzed) and None not in analyzed and not spread
    low = high = basis = pages = None
    if options.where is not None:
        require_one_expression(connection, relation, options.where)
    if options.sample is not None:
        _require_pages(relation)
    if options.exact:
        method = Method.EXACT
        rows = low = high = _counted(connection, relation, options.where)
    elif options.sample is not None:
        method = Method.SAMPLE
        sample = read_sample(connection, relation, options.sample, options.where, options.seed)
        rows, low, high = interval(sample)
        pages = sample.pages_read
    else:
        method = Method.ESTIMATE
        rows, basis = _estimate(connection, relation, options.where, parts, spread)
    return TableCount(
        table=relation.label,
        rows=rows,
        method=method,
        low=low,
        high=high,
        analyzed_at=min(analyzed) if whole else None,
        changed_since=sum(part.changed for part in stored) if stored else None,
        basis=basis,
        pages=pages,
    )


def _parts(connection: Connection, relation: Relation, *, citus: bool) -> tuple[Sequence[Any], frozenset[int]]:
    """The parts of the table, and those of them that Citus keeps on other servers."""
    parts = connection.execute(_PARTS, {"oid": relation.oid}).all()
    return parts, _distributed(connection, relation, parts) if citus else frozenset()


def _expected(connection: Connection, relation: Relation, options: CountOptions, *, citus: bool) -> int:
    # What an estimate sets for itself would take the parallel plan from the count that follows.
    with connection.begin_nested() as aside:
        rows, _ = _estimate(connection, relation, options.where, *_parts(connection, relation, citus=citus))
        aside.rollback()
    return rows


def _counted(connection: Connection, relation: Relation, where: str | None) -> int:
    statement = select(func.count()).select_from(relation.named())
    if where is not None:
        # The bound value is there for what `condition` says.
        statement = select(func.count(bindparam("one", 1, Integer))).select_from(relation.named())
        statement = statement.where(condition(where))
    with on_users_path(connection):
        return connection.execute(statement).scalar_one()


# Estimates.


def _estimate(
    connection: Connection, relation: Relation, where: str | None, parts: Sequence[Any], spread: frozenset[int]
) -> tuple[int, Basis]:
    """The rows of all parts, or those that meet a condition. A sum is as sure as the least sure of them."""
    if where is not None:
        if all(part.kind in ("r", "m") and part.pages_now == 0 and part.oid not in spread for part in parts):
            return 0, Basis.FILE_SIZE
        return round(_planned(connection, relation, where)["Plan Rows"]), Basis.PLANNER
    estimates: list[tuple[float, Basis]] = []
    unknown = []
    for part in parts:
        estimate = _from_shards(connection, part) if part.oid in spread else _from_catalog(part)
        if estimate is None:
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


# Citus: https://docs.citusdata.com/en/stable/develop/api_metadata.html and …/api_udf.html#run-command-on-shards


def _has_citus(connection: Connection) -> bool:
    return bool(connection.execute(text("SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL")).scalar_one())


_DISTRIBUTED = text("SELECT logicalrelid::oid FROM pg_catalog.pg_dist_partition WHERE logicalrelid::oid = ANY(:oids)")

# `%s` becomes the shard's name. As `_from_catalog`; a shard that was never analyzed answers nothing.
_ON_SHARD = """
    SELECT CASE WHEN relpages > 0
                THEN reltuples / relpages * (pg_relation_size(oid) / current_setting('block_size')::bigint)
                WHEN pg_relation_size(oid) = 0 THEN 0 END
    FROM pg_class WHERE oid = '%s'::regclass
"""
_SHARDS = text("""
    SELECT sum(nullif(shard.result, '')::float8) AS rows,
           bool_and(shard.success AND nullif(shard.result, '') IS NOT NULL) AS known
    FROM run_command_on_shards(CAST(CAST(:oid AS oid) AS regclass), :command) AS shard
""")


def _distributed(connection: Connection, relation: Relation, parts: Sequence[Any]) -> frozenset[int]:
    """Those of the table and its parts that Citus keeps on other servers."""
    oids = [relation.oid, *(part.oid for part in parts)]
    return frozenset(connection.execute(_DISTRIBUTED, {"oids": oids}).scalars())


def _from_shards(connection: Connection, part: Any) -> tuple[float, Basis] | None:
    try:
        with connection.begin_nested():
            shards = connection.execute(_SHARDS, {"oid": part.oid, "command": _ON_SHARD}).one()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        return None  # not allowed, or a worker is away: the planner still has an answer
    return (shards.rows, Basis.SHARDS) if shards.known else None


# Samples.


# Formulas hold on average, of an endless number of samples; without a margin they hold in 89 of 100 on a table with a
# long tail, and in 92 by chance on any other. With it, widths are 1.2 to 1.9 of what the true variance would give.
MARGIN = 1.3
RARE_MARGIN = 1.2


def interval(sample: PageSample | Draws) -> tuple[int, int, int]:
    """The rows of the table that a sample of its pages speaks for, and what they lie between with 95 % confidence.

    Pages are the units, not rows: rows of one page come together. The number on a page is taken apart into three: the
    median; what differs from it by up to the 90th percentile of such differences, for which Student's t holds; and the
    rest, on few pages, above and below. Few pages come as rare events do, and their sum has a gamma interval (Fay and
    Feuer, Confidence intervals for directly standardized rates, 1997), which also bounds what no page has shown. The
    three go together by the squares of their distances (Zou and Donner, Construction of confidence limits about effect
    measures, 2008). tests/test_count_intervals.py simulates how often the truth is in it, and how wide it is.
    """
    if isinstance(sample, Draws):
        return _interval_of_draws(sample)
    n, total = sum(sample.pages.values()), sample.of_pages
    seen = sample.certain + sum(rows * pages for rows, pages in sample.pages.items())
    if n >= total:
        return seen, seen, seen
    median = _quantile(sample.pages, 0.5)
    distances: Counter[int] = Counter()
    for rows, pages in sample.pages.items():
        distances[abs(rows - median)] += pages
    usual = _quantile(distances, 0.9)
    near = {rows: min(max(rows - median, -usual), usual) for rows in sample.pages}
    above = {max(rows - median - usual, 0): pages for rows, pages in sample.pages.items()}
    below = {max(median - usual - rows, 0): pages for rows, pages in sample.pages.items() if rows < median}
    mean = sum(near[rows] * pages for rows, pages in sample.pages.items()) / n
    variance = sum((near[rows] - mean) ** 2 * pages for rows, pages in sample.pages.items()) / (n - 1)
    half = MARGIN * _student(n - 1) * math.sqrt(variance * n)
    more, more_low, more_high = _rare(above, max(sample.most - median - usual, 0))
    less, less_low, less_high = _rare(below, max(median - usual, 0))
    # Of n pages each; what is read is no longer in doubt.
    rest, scale = math.sqrt(1 - n / total), total / n
    down = rest * math.hypot(half, more - more_low, less_high - less)
    up = rest * math.hypot(half, more_high - more, less - less_low)
    middle = (median + mean) * n + more - less
    rows = sample.certain + round(scale * middle)
    low = sample.certain + math.floor(scale * (middle - down))
    return rows, min(max(low, seen), rows), sample.certain + math.ceil(scale * (middle + up))


def _interval_of_draws(sample: Draws) -> tuple[int, int, int]:
    """As `interval`, from the differences between draws; each is one unit, whatever lies together in it."""
    n = sum(pages for _, pages in sample.draws)
    seen = sum(rows for rows, _ in sample.draws)
    if not n:
        return 0, 0, sample.of_pages * MOST_ROWS
    number, mean = len(sample.draws), seen / n
    residuals = sum((rows - mean * pages) ** 2 for rows, pages in sample.draws)
    half = MARGIN * _student(number - 1) * math.sqrt(residuals * number / (number - 1))
    _, _, unseen = _rare({}, math.ceil(mean) or MOST_ROWS)
    scale = sample.of_pages / n
    rows = round(scale * seen)
    low = math.floor(scale * (seen - math.hypot(half, unseen if seen else 0)))
    return rows, max(low, 0), math.ceil(scale * (seen + math.hypot(half, unseen)))


def _quantile(numbers: Mapping[int, int], share: float) -> int:
    """The number that so large a share of all does not exceed; `numbers` says how often each comes."""
    left = share * sum(numbers.values())
    for number in sorted(numbers):
        left -= numbers[number]
        if left <= 0:
            break
    return number


def _rare(sizes: Mapping[int, int], largest: int) -> tuple[float, float, float]:
    """The sum of what came rarely, and what its expectation lies between; `largest` is what could come at most."""
    total = sum(size * pages for size, pages in sizes.items())
    squares = sum(size * size * pages for size, pages in sizes.items())
    most = max(sizes, default=0) or largest
    if not most:
        return 0, 0, 0
    low = squares / (2 * total) * _chi_squared(2 * total**2 / squares, -Z) if total else 0.0
    further, weight = squares + most**2, total + most
    high = further / (2 * weight) * _chi_squared(2 * weight**2 / further, Z)
    return total, total - RARE_MARGIN * (total - low), total + RARE_MARGIN * (high - total)


def _chi_squared(freedom: float, z: float) -> float:
    """The quantile of chi squared at a normal one (E. B. Wilson and M. M. Hilferty, 1931)."""
    return float(freedom * max(1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom)), 0.0) ** 3)


# The 97.5 % quantile of the normal distribution.
Z = 1.959964


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, good from 10 degrees of freedom on (Abramowitz and Stegun, 26.7.5)."""
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
