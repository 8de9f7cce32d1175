"""Reads a sample of a table's pages and says how many rows each holds, as a histogram.

Pages are drawn here and read one by one by their place in the file, so that a page without a row counts as what it is.
One is drawn from each of equally long stretches of the table: what lies together is met in proportion. The ends of a
file are read whole: a load in bulk leaves pages without rows at its end, up to 64 for each session that wrote
(MAX_BUFFERS_TO_EXTEND_BY in bufmgr.h), and no other page tells of them.

A place in the file is a system column, which nobody may read who has rights on some columns only, and partitions may be
open to a user through their table only. Then TABLESAMPLE draws pages, several times, and each time is one unit.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Integer, bindparam, cast, column, func, literal_column, select, table, text, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.elements import quoted_name
from sqlalchemy.types import UserDefinedType

from harborctl.db.relations import condition
from harborctl.db.search_path import on_users_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import ColumnElement, Connection, Select

    from harborctl.db.relations import Relation

# Fewer pages say little about a table whose pages differ, and reading this many takes 30 ms.
FEWEST_PAGES = 400
# Pages at the end of each file that are read whole, of a table with few partitions.
END_PAGES = 128
# One statement reads so many.
PAGES_AT_ONCE = 10_000
# How often TABLESAMPLE draws.
DRAWS = 30
# Percent. To draw more takes as long as to count.
LARGEST_DRAW = 30
# What fits into a page of 8 kB: rows without a column.
MOST_ROWS = 291


@dataclass(frozen=True, slots=True)
class PageSample:
    """What the sampled pages hold.

    Attributes:
        of_pages: pages that could be drawn.
        pages: how many of those that were drawn hold so many rows.
        most: rows of the fullest page that was seen, also those that do not meet the condition.
        certain: rows on pages that were read whole, besides.
        certain_pages: how many pages these are.
    """

    of_pages: int
    pages: Mapping[int, int]
    most: int
    certain: int = 0
    certain_pages: int = 0

    @property
    def pages_read(self) -> int:
        """All of them."""
        return self.certain_pages + sum(self.pages.values())


@dataclass(frozen=True, slots=True)
class Draws:
    """What several independent draws of pages hold: of each its rows, and how many pages were read."""

    of_pages: int
    draws: Sequence[tuple[int, int]]

    @property
    def pages_read(self) -> int:
        """All of them; one may be among them twice."""
        return sum(pages for _, pages in self.draws)


_PARTS = text("""
    WITH RECURSIVE parts AS (
        SELECT CAST(:oid AS oid) AS oid
      UNION
        SELECT child.inhrelid FROM pg_inherits AS child JOIN parts ON parts.oid = child.inhparent
    )
    SELECT namespace.nspname AS schema, class.relname AS name,
           pg_relation_size(class.oid) / current_setting('block_size')::bigint AS pages,
           has_schema_privilege(namespace.oid, 'USAGE') AND has_table_privilege(class.oid, 'SELECT')
             AND (class.oid = :oid OR NOT row_security_active(CAST(:oid AS oid)) AND NOT row_security_active(class.oid))
             AS is_open,
           coalesce(pg_stat_get_xact_blocks_fetched(class.oid), 0) AS fetched
    FROM parts
    JOIN pg_class AS class ON class.oid = parts.oid
    JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
    WHERE class.relkind IN ('r', 'm')
    ORDER BY class.oid
""")

# One process does the reading: what helpers read is not in this session's counter. Compiling costs more than it saves.
_ALONE = text("SELECT set_config('max_parallel_workers_per_gather', '0', true), set_config('jit', 'off', true)")


def read_sample(
    connection: Connection, relation: Relation, percent: float, where: str | None, seed: int | None
) -> PageSample | Draws:
    """Sample `percent` of the table's pages, at least `FEWEST_PAGES`.

    Args:
        connection: in a transaction.
        relation: a table, a partitioned table or a materialized view.
        percent: more than 0, at most 100.
        where: an SQL condition; only rows that meet it count.
        seed: the same seed takes the same pages again, as long as the table stays as it is.
    """
    connection.execute(_ALONE)
    parts = connection.execute(_PARTS, {"oid": relation.oid}).all()
    if not all(part.is_open for part in parts):
        return _drawn(connection, relation, parts, percent, where, seed)
    end = max(END_PAGES // max(len(parts), 1), 8)
    middles = [max(part.pages - end, 0) for part in parts]
    ends = [range(middle, part.pages) for middle, part in zip(middles, parts, strict=True)]
    drawn = _chosen(sum(middles), percent, random.Random(seed))  # noqa: S311  # no secret
    histogram: Counter[int] = Counter()
    most = certain = first = 0
    for part, middle, certainly in zip(parts, middles, ends, strict=True):
        own = [page - first for page in drawn[bisect_left(drawn, first) : bisect_left(drawn, first + middle)]]
        first += middle
        for pages, into in ((own, histogram), (list(certainly), Counter[int]())):
            for begin in range(0, len(pages), PAGES_AT_ONCE):
                chunk = pages[begin : begin + PAGES_AT_ONCE]
                for row in _read(connection, part, relation.name, chunk, where):
                    into[row.hits] += row.pages
                    most = max(most, row.most)
            if into is not histogram:
                certain += sum(rows * number for rows, number in into.items())
    return PageSample(sum(middles), histogram, most, certain, sum(map(len, ends)))


def _chosen(pages: int, percent: float, chance: random.Random) -> list[int]:
    """Numbers of pages below `pages`, one from each of equally long stretches, in order."""
    wanted = min(pages, max(FEWEST_PAGES, round(pages * percent / 100)))
    edges = [number * pages // wanted for number in range(wanted)] + [pages] if wanted else []
    return [chance.randrange(low, high) for low, high in pairwise(edges)]


def _read(connection: Connection, part: Any, called: str, pages: list[int], where: str | None) -> Sequence[Any]:
    """How many of these pages hold how many rows that meet the condition."""
    drawn = func.unnest(bindparam("pages", pages, ARRAY(BigInteger))).table_valued(column("page", BigInteger))
    drawn = drawn.render_derived(name="drawn")
    first, beyond = (cast(func.format("(%s,0)", drawn.c.page + number), _Tid) for number in (0, 1))
    stored: Any = table(quoted_name(part.name, quote=True), schema=quoted_name(part.schema, quote=True))
    if part.name != called:  # a condition may call the table by its name
        stored = stored.alias(quoted_name(called, quote=True))
    hits = func.count().filter(condition(where)) if where else func.count()
    place: ColumnElement[Any] = literal_column("ctid", _Tid)
    on_page = (
        select(hits.label("hits"), func.count().label("all"))
        .select_from(stored)
        .with_hint(stored, "ONLY", "postgresql")
        .where(place >= first, place < beyond)
        .lateral("on_page")
    )
    statement = (
        select(on_page.c.hits, func.count().label("pages"), func.max(on_page.c["all"]).label("most"))
        .select_from(drawn.join(on_page, true()))
        .group_by(on_page.c.hits)
    )
    with on_users_path(connection):
        return connection.execute(statement).all()


class _Tid(UserDefinedType[str]):
    """The type of a row's place."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "pg_catalog.tid"


def _drawn(
    connection: Connection,
    relation: Relation,
    parts: Sequence[Any],
    percent: float,
    where: str | None,
    seed: int | None,
) -> PageSample | Draws:
    total = sum(part.pages for part in parts)
    percent = max(percent, 100.0 * FEWEST_PAGES / total) if total else 100.0
    if percent > LARGEST_DRAW:
        [rows] = connection.execute(_counted(relation.named(), where)).scalars()
        return PageSample(0, {}, 0, rows, total)
    chance = random.Random(seed)  # noqa: S311  # no secret
    draws = []
    fetched = sum(part.fetched for part in parts)
    for _ in range(DRAWS):
        sampled = relation.named().tablesample(
            func.system(percent / DRAWS),
            name=quoted_name(relation.name, quote=True),
            seed=literal_column(str(chance.randrange(2**31))),
        )
        with on_users_path(connection):
            rows = connection.execute(_counted(sampled, where)).scalar_one()
        before, fetched = fetched, sum(part.fetched for part in connection.execute(_PARTS, {"oid": relation.oid}))
        draws.append((rows, fetched - before))
    return Draws(total, draws)


def _counted(rows: Any, where: str | None) -> Select[int]:
    # The bound value is there for what `condition` says.
    statement = select(func.count(bindparam("one", 1, Integer))).select_from(rows)
    return statement if where is None else statement.where(condition(where))
