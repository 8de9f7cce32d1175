"""Counts tables, each by the method that was asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harborctl.counts.engines import has_citus
from harborctl.counts.estimate import estimated_rows, expected_rows, parts_of
from harborctl.counts.exact import exact_rows
from harborctl.counts.interval import interval
from harborctl.counts.result import Counting, CountOptions, Counts, Method, TableCount
from harborctl.counts.sample import read_sample
from harborctl.db.failures import translated
from harborctl.db.relations import (
    KINDS,
    find_relation,
    is_pattern,
    matching,
    require_one_expression,
)
from harborctl.db.storage import compressed_rows
from harborctl.errors import AccessDenied, ConnectionFailed, HarborctlError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Connection, Engine

    from harborctl.db.relations import Relation


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
        citus = has_citus(connection)
        counts: list[TableCount] = []
        failed: dict[str, HarborctlError] = {}
        for done, relation in enumerate(relations):
            try:
                with translated(), connection.begin_nested():
                    if on_table:
                        expected = expected_rows(connection, relation, options, citus=citus) if options.exact else None
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


def _require_rows_on_pages(relation: Relation, *, spread: bool, compressed: bool) -> None:
    """See that what would be sampled holds the rows."""
    if spread or compressed:
        where = "on shards of Citus, most of them on other servers" if spread else "in compressed chunks of TimescaleDB"
        raise UsageError(
            f"{relation.label} cannot be sampled: its rows are {where}",
            code="bad_target",
            hint="Leave --sample out for an estimate, or take --exact.",
        )


def _count(connection: Connection, relation: Relation, options: CountOptions, *, citus: bool) -> TableCount:
    parts, spread = parts_of(connection, relation, citus=citus)
    compressed = compressed_rows(connection) if options.sample is not None else {}
    # What the coordinator keeps of a spread table is an empty shell: its statistics mean nothing.
    stored = [part for part in parts if part.kind in ("r", "m") and part.oid not in spread]
    analyzed = [part.analyzed_at for part in parts]
    whole = bool(analyzed) and None not in analyzed and not spread
    low = high = basis = pages = None
    if options.where is not None:
        require_one_expression(connection, relation, options.where)
    if options.sample is not None:
        _require_pages(relation)
        _require_rows_on_pages(relation, spread=bool(spread), compressed=any(part.oid in compressed for part in parts))
    if options.exact:
        method = Method.EXACT
        rows = low = high = exact_rows(connection, relation, options.where)
    elif options.sample is not None:
        method = Method.SAMPLE
        sample = read_sample(connection, relation, options.sample, options.where, options.seed)
        rows, low, high = interval(sample)
        pages = sample.pages_read
    else:
        method = Method.ESTIMATE
        rows, basis = estimated_rows(connection, relation, options.where, parts, spread)
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
