"""The ledger's chunks: what of an unfinished load is in, whether its files still say so, and what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import cast, func, insert, select
from sqlalchemy.dialects.postgresql import JSONB

from harborctl.db.storable import storable
from harborctl.db.tables import chunks
from harborctl.errors import UsageError
from harborctl.load.ledger.record import this_transaction
from harborctl.model import Account
from harborctl.sources.files import Stretch, digest_of
from harborctl.sources.splits import Split

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Connection

    from harborctl.model import RunOptions
    from harborctl.sources.files import SourceFile
    from harborctl.sources.splits import Divisible

# Bytes that a connection gets at a time when several load: few enough that they end together, many enough that
# beginning a COPY does not show.
LARGEST_SPLIT = 64 * 1024 * 1024
SMALLEST_SPLIT = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Chunk:
    """A split that is in the target: in this transaction, or committed.

    Attributes:
        sha256: of what was read for it; if `is_whole`, of all of its file.
        rejected: how many of its rows were put aside.
    """

    split: Split
    path: str
    sha256: str
    account: Account
    rejected: int = 0
    is_whole: bool = False

    @property
    def rows(self) -> int:
        """Rows that were read."""
        return self.account.rows_read


def committed(connection: Connection, load_id: str) -> list[Chunk]:
    """The chunks of a load, in the order of its files."""
    rows = connection.execute(select(chunks).where(chunks.c.load_id == load_id)).all()
    found = [_chunk(row.counters, row.first_row) for row in rows]
    return sorted(found, key=lambda chunk: (chunk.split.file, chunk.split.start))


def total(done: Sequence[Chunk]) -> Account:
    """What became of all rows of these chunks."""
    return sum((chunk.account for chunk in done), Account())


def _chunk(written: dict[str, Any], first_row: int) -> Chunk:
    split = Split(written["file"], written["start"], written["end"], first_row)
    account, rejected = Account(**written["rows"]), written.get("rejected", 0)
    return Chunk(split, written["path"], written["sha256"], account, rejected, written["is_whole"])


def next_number(connection: Connection, load_id: str) -> int:
    """The number of the load's next chunk."""
    last = select(func.coalesce(func.max(chunks.c.number), 0)).where(chunks.c.load_id == load_id)
    return int(connection.execute(last).scalar_one()) + 1


def record_chunk(connection: Connection, load_id: str, number: int, chunk: Chunk) -> None:
    """Write down a chunk, in the transaction of its rows."""
    first = chunk.split.first_row or 1
    place = asdict(chunk.split)
    place.pop("first_row")
    connection.execute(
        insert(chunks).values(
            load_id=load_id,
            number=number,
            first_row=first,
            last_row=first + chunk.rows - 1,
            rows=chunk.rows,
            counters=cast(
                place
                | {
                    "path": storable(connection, chunk.path),
                    "sha256": chunk.sha256,
                    "is_whole": chunk.is_whole,
                    "rows": asdict(chunk.account),
                    "rejected": chunk.rejected,
                },
                JSONB,
            ).op("||")(func.jsonb_build_object("xid", this_transaction())),
        )
    )


def check_same(done: Sequence[Chunk], files: Sequence[Divisible], digests: Sequence[str]) -> None:
    """See that what is in is still what stands in the files; of some, `digests` has that of the whole.

    Raises:
        UsageError: it is not.
    """
    known = dict(enumerate(digests))
    for chunk in done:
        if chunk.split.file >= len(files) or files[chunk.split.file].file.name != chunk.path:
            raise _changed(f"{chunk.path}, of which rows are in, is not where it was among the files")
        divided = files[chunk.split.file]
        if chunk.is_whole and not known[chunk.split.file]:
            known[chunk.split.file] = digest_of(divided.file)
        if (known[chunk.split.file] if chunk.is_whole else digest_of(_cut(divided, chunk.split))) != chunk.sha256:
            raise _changed(f"{chunk.path} was changed in rows that are in already")


def _changed(what: str) -> UsageError:
    return UsageError(
        f"this load cannot go on where it was ended: {what}",
        code="source_changed",
        hint="Bring the file back as it was, or load all of it, what is in included, with --again.",
    )


def _cut(divided: Divisible, split: Split) -> SourceFile:
    return replace(divided.file, stretch=Stretch(divided.head, split.start, split.end))


def missing(
    done: Sequence[Chunk], files: Sequence[Divisible], run: RunOptions, skip: Collection[int]
) -> Iterator[Split]:
    """What is not in, in splits of as many rows as `run` says, or else of a size that suits its jobs; of the files to
    `skip` nothing.

    For a single one that is all of it: rows may refer to rows further down.
    """
    rows, jobs, total = run.commit_every, run.jobs, sum(divided.end for divided in files)
    size = max(min(total // (jobs * 4), LARGEST_SPLIT), SMALLEST_SPLIT) if jobs > 1 else total
    first_row = 1
    for number, divided in enumerate(files):
        if number in skip:
            continue
        position = divided.head
        own = [chunk for chunk in done if chunk.split.file == number]
        for chunk in [*own, None]:
            end = divided.end if chunk is None else chunk.split.start
            for start, stop, counted in divided.cuts(position, end, rows=rows, size=size):
                yield Split(number, start, stop, first_row if rows else None)
                first_row += counted or 0
            if chunk is not None:
                position = chunk.split.end
                first_row = (chunk.split.first_row or 1) + chunk.rows
