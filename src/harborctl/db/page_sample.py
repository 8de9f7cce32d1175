"""Reads a sample of a table's pages and says how many rows each holds, in a few sums.

TABLESAMPLE SYSTEM takes every page with the same probability, whole: rows of one page stand or fall together, so that
what is sampled is pages. It says nothing of pages that hold no row; how many pages it has read is found in the
server's own counter of this transaction. https://www.postgresql.org/docs/current/sql-select.html#SQL-FROM
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, Numeric, cast, func, literal_column, select, text
from sqlalchemy.sql.elements import quoted_name

from harborctl.db.relations import condition
from harborctl.db.search_path import on_users_path

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Connection

    from harborctl.db.relations import Relation

# Fewer pages say little about a table whose pages differ, and reading this many takes milliseconds.
FEWEST_PAGES = 100


@dataclass(frozen=True, slots=True)
class PageSample:
    """What the sampled pages hold.

    Attributes:
        of_pages: pages that the table has.
        pages: pages that were read, also those without a row.
        rows: on all of them.
        squares, cubes: sums of the rows of each page, squared and cubed.
        most: rows of the fullest page.
    """

    of_pages: int
    pages: int
    rows: int
    squares: int
    cubes: int
    most: int


_PAGES = text("""
    WITH RECURSIVE parts AS (
        SELECT CAST(:oid AS oid) AS oid
      UNION
        SELECT child.inhrelid FROM pg_inherits AS child JOIN parts ON parts.oid = child.inhparent
    )
    SELECT coalesce(sum(pg_relation_size(class.oid) / current_setting('block_size')::bigint), 0)::bigint AS pages,
           coalesce(sum(pg_stat_get_xact_blocks_fetched(class.oid)), 0)::bigint AS fetched
    FROM parts JOIN pg_class AS class ON class.oid = parts.oid
    WHERE class.relkind IN ('r', 'm')
""")

# One process does the reading: what helpers read is not in this session's counter.
_ALONE = text("SELECT set_config('max_parallel_workers_per_gather', '0', true)")


def read_sample(
    connection: Connection, relation: Relation, percent: float, where: str | None, seed: int | None
) -> PageSample:
    """Sample `percent` of the table's pages, at least about `FEWEST_PAGES`.

    Args:
        connection: in a transaction.
        relation: a table, a partitioned table or a materialized view.
        percent: more than 0, at most 100.
        where: an SQL condition; only rows that meet it count.
        seed: the same seed takes the same pages again, as long as the table stays as it is.
    """
    connection.execute(_ALONE)
    before = connection.execute(_PAGES, {"oid": relation.oid}).one()
    if before.pages:
        percent = min(100.0, max(percent, 100.0 * FEWEST_PAGES / before.pages))
    sampled = relation.named().tablesample(
        func.system(percent),
        name=quoted_name(relation.name, quote=True),  # a condition may call the table by its name
        seed=None if seed is None else literal_column(str(seed)),
    )
    # A row's place is (page, number), and text is the only way into it that every version has.
    page: ColumnElement[int] = literal_column("((ctid::text::point)[0])::bigint")
    by_page = select(func.count(text("1")).label("rows")).select_from(sampled)
    if where is not None:
        by_page = by_page.where(condition(where))
    pages = by_page.group_by(literal_column("tableoid"), page).subquery("pages")
    rows = cast(pages.c.rows, Numeric)
    with on_users_path(connection):
        sums = connection.execute(
            select(
                func.count().label("pages"),
                func.coalesce(func.sum(rows), 0).label("rows"),
                func.coalesce(func.sum(rows * rows), 0).label("squares"),
                func.coalesce(func.sum(rows * rows * rows), 0).label("cubes"),
                cast(func.coalesce(func.max(pages.c.rows), 0), BigInteger).label("most"),
            )
        ).one()
    after = connection.execute(_PAGES, {"oid": relation.oid}).one()
    # Where the server does not count (track_counts = off), pages without a row are taken for not there.
    read = max(after.fetched - before.fetched, sums.pages)
    return PageSample(
        of_pages=max(before.pages, read),
        pages=read,
        rows=int(sums.rows),
        squares=int(sums.squares),
        cubes=int(sums.cubes),
        most=int(sums.most),
    )
