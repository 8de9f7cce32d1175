"""What an attempt at a load begins with, and how far it came: values, of which each step makes the next one."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from harborctl.sources.spool import Spool

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harborctl.db.catalog import Relation
    from harborctl.db.engine import Database
    from harborctl.load.ledger.chunks import Chunk
    from harborctl.load.ledger.dedupe import Known
    from harborctl.load.ledger.standing import Standing
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.settle import Ending
    from harborctl.load.run.creation import Creation
    from harborctl.load.write.bad_row import Progress
    from harborctl.model import ErrorInfo, LoadOptions, LoadResult
    from harborctl.sources.batch import Source
    from harborctl.sources.files import SourceFile


@dataclass(frozen=True, slots=True)
class Context:
    """What an attempt begins with.

    Attributes:
        start: seconds of the monotonic clock.
        notes: what the user should know of how it is loaded.
        retried: what ended the attempts before.
        was_connected: there has been a connection.
        thorough: another run has been found to load the same: look well what of it is in.
        most_rejects: with so many it ends.
        samples: types of a new table may be told by a sample, which has not misled yet.
        spool: keeps what can be read once only, where it has to be read again.
    """

    database: Database
    options: LoadOptions
    progress: Progress
    load_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    start: float = field(default_factory=time.monotonic)
    notes: tuple[str, ...] = ()
    retried: tuple[ErrorInfo, ...] = ()
    was_connected: bool = False
    thorough: bool = False
    most_rejects: int | None = None
    samples: bool = True
    spool: Spool = field(default_factory=Spool)

    @property
    def keeps_record(self) -> bool:
        """Whether the ledger is to know of this load."""
        return self.options.ledger and not self.options.dry_run


@dataclass(frozen=True, slots=True)
class Attempt:
    """One go at a load, as far as it came.

    Attributes:
        keys: what its transactions have signed with; the last one whose COMMIT decides.
        has_ledger: there is one to ask.
        creation: the target, if it is not there, and is to be made.
        additions: names and types of columns that the target gets.
        left_out: sources that are in already, by their place among all; `found` and `sources` are the others.
        standing: the target before the first row; needed by the ledger.
        committing: what COMMIT was sent for; whether it went through only its answer says, or the ledger.
        chunks: of a load in chunks, those that are committed.
    """

    context: Context
    keys: tuple[int, ...] = ()
    has_ledger: bool = False
    creation: Creation | None = None
    additions: Sequence[tuple[str, str]] = ()
    found: Sequence[SourceFile] = ()
    sources: Sequence[Source] = ()
    left_out: Mapping[int, Known] = field(default_factory=dict)
    target: Relation | None = None
    standing: Standing | None = None
    plans: Sequence[Plan] = ()
    ending: Ending | None = None
    committing: LoadResult | None = None
    chunks: tuple[Chunk, ...] | None = None

    @property
    def read_once(self) -> SourceFile | None:
        """A source that cannot be read again."""
        return next((file for file in self.found if file.path is None), None)


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that did not go in, and what ended it."""

    attempt: Attempt
    error: BaseException
