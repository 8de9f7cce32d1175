"""Which way rows take: by COPY or INSERT, straight into the target or through a staging table. Decided once a load."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from harborctl.db.storage import Storage
from harborctl.load.plan.plan import Plan, Route
from harborctl.model import WriterName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harborctl.model import LoadOptions
    from harborctl.sources.batch import Batch

# https://www.postgresql.org/docs/current/limits.html
MOST_COLUMNS = 1600

# A source that ends within these rows and bytes goes through `values` when nobody chose: its round trips cost less than
# a COPY and a second thread would.
SMALL_LOAD_ROWS = 2000
SMALL_LOAD_BYTES = 4 * 1024 * 1024


def choose_writer(
    options: LoadOptions, plans: Sequence[Plan], batches: Iterator[Batch]
) -> tuple[WriterName, Iterable[Batch]]:
    """The load's writer, never `auto`, and all batches of its first source, of which it may have to see some."""
    # What INSERT stages is numbered, and a table this wide has no room for a number.
    is_full = plans[0].mode.by_key and len(plans[0].names) >= MOST_COLUMNS
    if options.writer is not WriterName.AUTO or len(plans) > 1 or is_full:
        return WriterName.VALUES if options.writer is WriterName.VALUES else WriterName.COPY, batches
    taken: list[Batch] = []
    rows = size = 0
    for batch in batches:
        taken.append(batch)
        rows += batch.records.num_rows
        size += batch.records.nbytes
        if rows > SMALL_LOAD_ROWS or size > SMALL_LOAD_BYTES:
            return WriterName.COPY, chain(taken, batches)
    return WriterName.VALUES, taken


def routed(plan: Plan, options: LoadOptions, writer: WriterName) -> Plan:
    """The plan with the load's writer, and the way that its rows take for that."""
    target, is_copy = plan.target, writer is WriterName.COPY
    isolates = options.rejects.rejecting or bool(options.rejects.checks)
    # COPY does not go through views and row-level security, and where a view's trigger writes it miscounts. INSERT of
    # row after row does not find what a row refers to further down.
    needs_insert = target.kind == "v" or target.filtered
    # Citus takes one INSERT of all rows with values of any type, and of row after row not. Each attempt to send it some
    # goes to several servers: which rows are bad is found out in a table here first.
    is_citus = target.storage is Storage.SHARDS
    needs_all = target.refers_to_itself or is_citus
    is_staged = plan.mode.by_key or (is_citus if isolates else needs_insert if is_copy else needs_all)
    return replace(
        plan,
        writer=writer,
        route=Route.STAGED if is_staged else Route.DIRECT,
        copies=is_copy and (is_staged or not needs_insert),
        isolates=isolates,
    )
