"""Bad rows of a load in chunks, kept in the ledger: each commits with its chunk, and outlives a killed run.

At the end of the load the reject file is made of them all, and they are forgotten.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from heapq import merge
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from sqlalchemy import delete, func, insert, select, tuple_

from harborctl.db.tables import rejects
from harborctl.load.rejects.spool import Malformation, Rejected
from harborctl.load.write.bad_row import Reason
from harborctl.sources.batch import Original

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import Connection, Row

    from harborctl.sources.batch import Source
    from harborctl.sources.splits import Split

# Rows in one round trip.
PART = 1000

_RECORD, _VALUES, _BROKEN_VALUE, _UNSPLIT = "record", "values", "broken value", "unsplit"

# Where a reject stands in its load: file, start of its split, position there.
Place = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Kept:
    """A reject and its place."""

    place: Place
    rejected: Rejected


def keep(connection: Connection, load_id: str, split: Split, found: Iterable[Rejected]) -> int:
    """Keep the rejects of a split, in the transaction of its rows; returns how many."""
    count = 0
    waiting: list[dict[str, Any]] = []
    for rejected in found:
        waiting.append(
            {"load_id": load_id, "file": split.file, "start": split.start, "position": count, **_stored(rejected)}
        )
        count += 1
        if len(waiting) == PART:
            connection.execute(insert(rejects), waiting)
            waiting = []
    if waiting:
        connection.execute(insert(rejects), waiting)
    return count


def kept(connection: Connection, load_id: str, splits: Sequence[Split] | None = None) -> Iterator[Kept]:
    """The rejects of a load, or of these splits of it, in load order."""
    query = select(rejects).where(rejects.c.load_id == load_id)
    if splits is not None:
        places = [(split.file, split.start) for split in splits]
        query = query.where(tuple_(rejects.c.file, rejects.c.start).in_(places))
    query = query.order_by(rejects.c.file, rejects.c.start, rejects.c.position)
    for row in connection.execute(query, execution_options={"yield_per": PART}):
        yield Kept((row.file, row.start, row.position), _read(row))


def forget(connection: Connection, load_id: str) -> bool:
    """Keep them no longer: they are in the reject file. False if this user may only add to the ledger."""
    may_delete = func.has_table_privilege(rejects.fullname, "DELETE")
    if not connection.execute(select(may_delete)).scalar_one():
        return False
    connection.execute(delete(rejects).where(rejects.c.load_id == load_id))
    return True


class KeptRejects:
    """The rejects of a load in chunks: those in the ledger, and `pending` ones of chunks that are not in yet."""

    # Each file of rejects has the column for records without form: whether one comes only the last chunk tells.
    has_raw = True

    def __init__(self, connection: Connection, load_id: str, pending: Iterable[Kept], count: int) -> None:
        self._connection = connection
        self._load_id = load_id
        self._pending = sorted(pending, key=_place)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def read(self, _: Sequence[Source]) -> Iterator[Rejected]:
        """All of them, in load order."""
        committed = kept(self._connection, self._load_id)
        return (one.rejected for one in merge(committed, self._pending, key=_place))


def _place(one: Kept) -> Place:
    return one.place


def _stored(rejected: Rejected) -> dict[str, Any]:
    original = rejected.original
    if isinstance(original, Malformation):
        form, data = (_BROKEN_VALUE if original.splits else _UNSPLIT), original.text
    elif original.row is None:
        form, data = _RECORD, original.text
    else:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, original.row.schema) as writer:
            writer.write(original.row)
        form, data = _VALUES, sink.getvalue().to_pybytes()
    reason = json.dumps(asdict(rejected.reason))  # ASCII: half characters and NULs are escaped
    return {"line": rejected.line, "reason": reason, "form": form, "original": data}


def _read(row: Row[Any]) -> Rejected:
    original: Malformation | Original
    if row.form in {_BROKEN_VALUE, _UNSPLIT}:
        original = Malformation(row.line, row.original, row.form == _BROKEN_VALUE)
    elif row.form == _RECORD:
        original = Original(row.line, row.original)
    else:
        original = Original(row.line, row=pa.ipc.open_stream(row.original).read_next_batch())
    return Rejected(row.file, row.line, Reason(**json.loads(row.reason)), original)
