"""Loads in chunks: `--commit-every` commits each with its ledger row, `--jobs` loads several at once.

One connection holds the load's locks from begin to end, and commits last, with the ledger's row. The chunks are loaded
by lanes. Each lane needs a session, and so does the holder; the ledger is written before the lanes begin. With `--jobs`
alone all chunks are written before the first is committed: only a crash between the first COMMIT and the last leaves a
part of the load behind. Whatever is left behind, the next run finds in the ledger, and loads what is missing.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from sqlalchemy import BigInteger, cast, func, select, text
from sqlalchemy.exc import DBAPIError

from harborctl.db.catalog import find_target
from harborctl.db.failures import translate, translated
from harborctl.db.migrations import require_ledger
from harborctl.db.sessions import require_sessions
from harborctl.db.statistics import analyze_after
from harborctl.db.storable import storable
from harborctl.errors import ConnectionFailed, HarborctlError, LockHeld, SourceChanged, UsageError
from harborctl.load.ledger import record
from harborctl.load.ledger.chunks import Chunk, check_same, committed, missing, next_number, total
from harborctl.load.ledger.dedupe import (
    AlreadyLoaded,
    asks,
    await_ending,
    find_begun,
    find_known,
    fingerprint,
    meaning_of,
)
from harborctl.load.ledger.standing import standing_of
from harborctl.load.modes import check_target
from harborctl.load.rejects.ledger_spool import KeptRejects, forget, kept
from harborctl.load.rejects.settle import Ending
from harborctl.load.run.chunk_rules import check_parts, refuse_read_once, refuse_references
from harborctl.load.run.loader import Attempt
from harborctl.load.run.prepare import make_plans, start_progress, table_name
from harborctl.load.run.workers import Job, make_lanes
from harborctl.load.session.backend import HOLDERS, end_signed, new_key
from harborctl.load.session.locks import stay_open, take_named, take_turn
from harborctl.model import FileResult, LoadResult, Mode, Status, WriterName
from harborctl.sources.files import check_unchanged, content_of, find_files
from harborctl.sources.open import open_file, refuse_strange_options
from harborctl.sources.splits import PieceDigests, divisible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future

    from sqlalchemy import Connection

    from harborctl.load.ledger.dedupe import Begun
    from harborctl.load.ledger.standing import Standing
    from harborctl.load.run.workers import Lane
    from harborctl.sources.splits import Divisible, Piece

# "hrbc" in ASCII: beside the targets' locks, those of loads in chunks, by fingerprint.
NAMESPACE = 0x68726263

# Seconds after which a lane that waits for another looks whether that has failed.
POLL = 0.1

# Seconds after which it is looked whether lanes wait for each other.
WATCH = 1.0

# Lanes that wait for the end of another's transaction.
_WAITING_WRITERS = text(
    f"WITH writers AS ({HOLDERS})"  # noqa: S608  # of constants
    """
    SELECT EXISTS (
        SELECT FROM pg_locks AS waiting JOIN writers USING (pid)
        WHERE waiting.locktype = 'transactionid' AND NOT waiting.granted
          AND EXISTS (SELECT FROM writers AS others WHERE others.pid = ANY (pg_blocking_pids(waiting.pid)))
    )
"""
)

DEADLOCK = "40P01"
SAME_KEY = "rows in different parts of the source have the same key"

logger = logging.getLogger("harborctl")


class LanesMeet(Exception):
    """Several connections cannot load this."""


@dataclass(slots=True)
class ChunkedLoad(Attempt):
    """A load in chunks, as far as it is known."""

    files: tuple[Divisible, ...] = ()
    done: list[Chunk] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _ended: bool = False
    _failures: list[tuple[Piece, BaseException]] = field(default_factory=list)
    _written: int = 0
    _read: list[str] = field(default_factory=list)
    _own_digests: dict[Piece, str] = field(default_factory=dict)
    # Of each file, the digest of what is in it, where it is known before the load, and the size.
    _contents: list[tuple[str, int]] = field(default_factory=list)
    # Files of a load that goes on which another load has put in meanwhile.
    _skip: set[int] = field(default_factory=set)
    _lanes_key: int = 0
    # The connection that holds the locks and watches the lanes. Threads take turns at it.
    _holder: Connection = field(init=False)
    _at_holder: threading.RLock = field(default_factory=threading.RLock)

    def run(self) -> LoadResult:
        """Load what is missing, chunk by chunk."""
        check_parts(self.options)
        self._require_sessions()
        try:
            return self._run()
        except LanesMeet as meeting:
            logger.warning("%s; going on by one connection", meeting)
            self._go_on_by_one_connection(str(meeting))
            return self._run()

    def _require_sessions(self) -> None:
        """With fewer than this the load would wait for itself."""
        if self.retried:
            return  # they were there
        run = self.options.run
        option = f"--jobs {run.jobs}" if run.jobs > 1 else "--commit-every"
        hint = "Without --commit-every and --jobs a load needs one."
        with translated():
            require_sessions(self.database.engine, run.jobs + 1, f"a load with {option}", hint)

    @property
    def has_committed(self) -> bool:
        """See `Attempt`."""
        return bool(self.done)

    def _go_on_by_one_connection(self, why: str) -> None:
        self.options = replace(self.options, run=replace(self.options.run, jobs=1))
        self.notes = (*self.notes, f"loaded by one connection: {why}")

    def _run(self) -> LoadResult:
        self.target, self.keys, self._ended, self._written = None, [], False, 0
        self.done, self.plans, self.ending, self._failures = [], [], None, []
        self._own_digests = {}
        self.found = find_files(self.options.sources, self.options.format, self.options.layout)
        refuse_strange_options(self.options.dialect, self.found)
        self.sources, files = [], []
        for file in self.found:
            if file.path is None:  # a glob has found it
                refuse_read_once(self.options, file.name)
            # Only its start is read here: of a thousand files not all can be open at once.
            with closing(open_file(file, self.options.dialect)) as source:
                self.sources.append(source)
                files.append(divisible(file, source, self.options.dialect))
        self.files = tuple(files)
        if self.options.run.commit_every and (whole := [each for each in self.files if each.is_whole]):
            raise UsageError(
                f"--commit-every needs files that can be entered in the middle, which {whole[0].file.name} is not",
                code="not_divisible",
                hint="That are uncompressed UTF-8 CSV files with a header, and Parquet files.",
            )
        with translated(), self.database.engine.connect() as holder:
            self.connected = True
            self._holder = holder
            try:
                with holder.begin():
                    with self.database.engine.connect() as books:
                        job = self._begin_chunks(books)
                        if self.options.run.jobs > 1:
                            books.invalidate()  # the lanes of other processes need the session
                    result = self._carry_out(job)
                    self.committing = result
            except (AlreadyLoaded, LockHeld) as reason:
                return self.unneeded(holder, reason)
        self.committing = None
        return result

    def _begin_chunks(self, books: Connection) -> Job:
        """Take the locks, say that this load runs or runs again, and see what is in."""
        holder = self._holder
        with books.begin():
            require_ledger(books, keeps_rejects=self.options.rejects.rejecting)
            self.target = target = find_target(books, table_name(self.options, self.found, self.sources))
        check_target(target, self.options.mode)
        refers = target.refers_to_itself
        if refers and self.options.rejects.rejecting:
            refuse_references(self.options, target.label, len(self.files))
        if refers and self.options.run.jobs > 1:
            self._go_on_by_one_connection(f"rows of {target.label} refer to others, which only it would see")
        mark = fingerprint(self.options, target, ())
        key = int.from_bytes(bytes.fromhex(mark)[:8], signed=True)
        self.sign(holder)
        stay_open(holder)
        policy = self.options.run.lock
        take_named(holder, NAMESPACE, key >> 32, policy, f"the same load into {target.label} runs")
        if self.options.mode is not Mode.APPEND:
            take_turn(holder, target, policy)
        with books.begin():
            # What a killed run has left is over when this lock can be had.
            books.execute(select(func.pg_advisory_xact_lock(cast(key, BigInteger))))
            if asks(self.options):
                await_ending(books, target)
            self.standing = standing_of(books, target)
            begun = find_begun(books, self.options, self.standing, self.sources, self.load_id)
            self._lay_out(books, self.standing, begun)
            done = committed(books, begun.load_id)
            self._contents = [
                ("", each.file.size or 0) if each.quote is not None else content_of(each.file) for each in self.files
            ]
            digests = tuple(digest for digest, _ in self._contents)
            check_same(done, self.files, digests)
            self.load_id, self.done = begun.load_id, done
            about = [each.file.name for each in self.files]
            record.begin(
                books, self.options, self.load_id, target, self.started_at, mark, chunked=(self.standing, about)
            )
        with books.begin():
            self.plans = make_plans(books, target, self.sources, self.options)
        if self.done:
            logger.warning("going on with load %s: %s are in", self.load_id, self._what_is_in())
        name = ".".join('"' + part.replace('"', '""') + '"' for part in (target.schema, target.name))
        options = replace(self.options, table=name, run=replace(self.options.run, jobs=1, commit_every=None))
        self._lanes_key = new_key()
        self.keys.append(self._lanes_key)
        hashes = self.options.run.commit_every is not None
        return Job(options, self.load_id, self.files, digests, key, self._lanes_key, hashes=hashes)

    def _lay_out(self, books: Connection, standing: Standing, begun: Begun) -> None:
        """Leave out what is in by other loads. The files of a load that goes on keep their numbers, by which the ledger
        knows its chunks; files that have come since go behind them.

        Raises:
            AlreadyLoaded: all is in.
        """
        self.left_out, self._skip = {}, set()
        if asks(self.options):
            self.left_out = find_known(
                books, self.options, standing, self.sources, self.found, begun.load_id, thorough=True
            )
        if len(self.left_out) == len(self.sources):
            raise AlreadyLoaded(self.left_out)
        waiting = list(range(len(self.sources)))
        names: list[str] = storable(books, [source.name for source in self.sources])
        order = []
        for name in begun.files:
            place = next((place for place in waiting if names[place] == name), None)
            if place is None:
                break
            order.append(place)
            waiting.remove(place)
        order += [place for place in waiting if place not in self.left_out]
        self._skip = {number for number, place in enumerate(order) if place in self.left_out}
        self.sources[:] = [self.sources[place] for place in order]
        self.found[:] = [self.found[place] for place in order]
        self.files = tuple(self.files[place] for place in order)

    def _carry_out(self, job: Job) -> LoadResult:
        run = self.options.run
        start_progress(self.progress, self.sources)
        pieces = missing(list(self.done), self.files, rows=run.commit_every, jobs=run.jobs, skip=self._skip)
        first = next(pieces, None)
        pieces = chain([first] if first else [], pieces)
        handed: SimpleQueue[Piece | None] = SimpleQueue()
        pieces = _noted(pieces, handed)
        first_number = next_number(self._holder, self.load_id)
        if self.options.rejects.rejecting or any(chunk.rejected for chunk in self.done):
            self.ending = Ending(self.options, self.sources, self.plans, complete=first is None)
        with ThreadPoolExecutor(1) as hashing, ExitStack() as stack:
            stack.callback(setattr, self, "_ended", True)
            digests = hashing.submit(self._digests, job, handed)
            stack.push(self._end_writers)
            lanes = make_lanes(self.database, job, run.jobs)
            for lane in lanes:
                stack.callback(lane.close)
            if run.commit_every:
                before = len(self.done)
                self._load_and_commit(lanes, pieces, first_number)
                self._check_stored(self.done[before:], digests)
                self._settle_rejects(self.done, [])
            else:
                self._load_then_commit(lanes, pieces, first_number, digests)
            return self._finish(digests.result())

    def _check_holder(self) -> None:
        """Before each COMMIT: whose locks are lost is not alone any more.

        Raises:
            ConnectionFailed: they are.
        """
        try:
            with self._at_holder:
                self._holder.execute(text("SELECT 1"))
        except DBAPIError as error:
            lost = translate(error)
            raise ConnectionFailed(
                f"the session that held the locks of this load was ended: {lost.message}", code=lost.code
            ) from error

    def _settle_rejects(self, written: list[Chunk], pending: list[Lane]) -> None:
        """Write the reject file of these chunks, of which those of `pending` lanes are not committed, and judge."""
        if self.ending is None:
            return
        self.progress.stage("rejects")
        rejects = KeptRejects(
            sum(chunk.rejected for chunk in written),
            lambda: kept(self._holder, self.load_id),
            lambda: [one for lane in pending for one in lane.rejects()],
        )
        with self._at_holder:
            self.ending.settle(rejects, sum(chunk.rows for chunk in written))

    def _end_writers(self, kind: type[BaseException] | None, *_: object) -> None:
        """End what the server still does for lanes that were closed at their work: it would notice, and give back its
        locks, when its statement is over."""
        if kind is None:
            return
        with suppress(DBAPIError, HarborctlError), self._at_holder:
            if not self._holder.invalidated:
                end_signed(self._holder, self._lanes_key)
                return
        with suppress(DBAPIError, HarborctlError), self.database.engine.begin() as connection:
            end_signed(connection, self._lanes_key)

    def _load_and_commit(self, lanes: list[Lane], pieces: Iterator[Piece], number: int) -> None:
        """Each chunk commits as soon as it and all before it are written, so that what is in is how the load begins.

        The limit of rejects is judged of what was read so far: what would exceed it is not committed.
        """
        limit = self.options.rejects.limit
        numbers: dict[Piece, int] = {}
        turn = threading.Condition()

        def numbered() -> Iterator[Piece]:
            for own, piece in enumerate(pieces, number):
                numbers[piece] = own
                yield piece

        def step(lane: Lane, piece: Piece) -> Chunk:
            nonlocal number
            chunk = lane.load(piece)
            with turn:
                while number != numbers[piece]:
                    if self._ended and not self._precedes_failures(piece):
                        return chunk
                    turn.wait(POLL)
                written = [*self.done, chunk]
                if limit is not None and not limit.allows(
                    sum(c.rejected for c in written), sum(c.rows for c in written)
                ):
                    self._settle_rejects(written, [lane])
                check_unchanged(self.found)
                self._check_holder()
                lane.commit([(number, chunk)])
                self.done.append(chunk)
                number += 1
                turn.notify_all()
            return chunk

        self._drive(lanes, numbered(), step)

    def _load_then_commit(
        self, lanes: list[Lane], pieces: Iterator[Piece], number: int, digests: Future[list[str]]
    ) -> None:
        """Nothing commits before all is written, and read for its digest."""
        written: dict[int, list[Chunk]] = {place: [] for place in range(len(lanes))}

        def step(lane: Lane, piece: Piece) -> Chunk:
            chunk = lane.load(piece)
            written[lanes.index(lane)].append(chunk)
            return chunk

        self._drive(lanes, pieces, step)
        whole = digests.result()
        self.progress.stage("commit")
        every = sorted(
            [*self.done, *(chunk for chunks in written.values() for chunk in chunks)],
            key=lambda chunk: (chunk.piece.file, chunk.piece.start),
        )
        first_rows, row = {}, 1
        for chunk in every:
            first_rows[chunk.piece] = row
            row += chunk.rows
        self.check_expected(row - 1)
        self._settle_rejects(every, lanes)
        if len(lanes) > 1:
            for lane in lanes:
                lane.check()
        check_unchanged(self.found)
        self._check_holder()
        for place, lane in enumerate(lanes):
            placed = [
                replace(
                    chunk,
                    piece=replace(chunk.piece, first_row=first_rows[chunk.piece]),
                    sha256=whole[chunk.piece.file],
                    is_whole=True,
                )
                for chunk in written[place]
            ]
            lane.commit(list(enumerate(placed, number)))
            number += len(placed)
            self.done += placed

    def _drive(self, lanes: list[Lane], pieces: Iterator[Piece], step: Callable[[Lane, Piece], Chunk]) -> None:
        """Give each lane the next piece until there are none, or one fails. The others end what they have begun: chunks
        that stand before the failure commit, and of several bad rows the first is told.

        Raises:
            LanesMeet: one lane waits for what another has written, which commits only when all, or those before it, do.
        """

        def drive(lane: Lane) -> None:
            while not self._ended:
                with self._lock:
                    piece = next(pieces, None)
                if piece is None:
                    return
                try:
                    chunk = step(lane, piece)
                except BaseException as error:  # noqa: BLE001  # raised again when all lanes have ended
                    with self._lock:
                        self._failures.append((piece, error))
                    self._ended = True
                    return
                with self._lock:
                    self._written += chunk.rows
                    self.progress.rows_sent(self._written)

        if len(lanes) == 1:
            drive(lanes[0])
            self._raise_first()
            return
        with ThreadPoolExecutor(len(lanes)) as pool:
            futures = [pool.submit(drive, lane) for lane in lanes]
            try:
                while wait(futures, WATCH).not_done:
                    with self._at_holder:
                        if self._holder.execute(_WAITING_WRITERS, {"key": self._lanes_key}).scalar_one():
                            raise LanesMeet(SAME_KEY)
                self._raise_first()
            except BaseException:  # Ctrl-C, too
                self._ended = True
                for lane in lanes:
                    lane.close()
                raise

    def _precedes_failures(self, piece: Piece) -> bool:
        """Whether pieces have failed, and all of them stand behind this one."""
        with self._lock:
            return bool(self._failures) and all(_place(piece) < _place(failed) for failed, _ in self._failures)

    def _raise_first(self) -> None:
        if not self._failures:
            return
        _, error = min(self._failures, key=lambda failure: _place(failure[0]))
        if any(isinstance(each, HarborctlError) and each.code == DEADLOCK for _, each in self._failures):
            raise LanesMeet(SAME_KEY) from error
        raise error

    def _digests(self, job: Job, handed: SimpleQueue[Piece | None]) -> list[str]:
        """The digests of all files, read beside the load, and in the same reading those of the pieces as they are
        handed out: so the digest of the whole is one of what is stored."""
        digests, piece = list(job.digests), self._next_handed(handed)
        for number, each in enumerate(self.files):
            if digests[number] == "":
                with closing(PieceDigests(each)) as reading:
                    while piece is not None and piece.file == number:
                        if job.hashes:
                            self._own_digests[piece] = reading.of(piece.start, piece.end)
                        piece = self._next_handed(handed)
                    digests[number] = "" if self._ended else reading.whole()
            while piece is not None and piece.file == number:
                piece = self._next_handed(handed)
        return digests

    def _next_handed(self, handed: SimpleQueue[Piece | None]) -> Piece | None:
        while not self._ended:
            with suppress(Empty):
                return handed.get(timeout=POLL)
        return None

    def _check_stored(self, stored: Sequence[Chunk], digests: Future[list[str]]) -> None:
        """See that what was stored is what the whole, whose digest the ledger gets, consists of."""
        digests.result()
        for chunk in stored:
            read = chunk.sha256 if chunk.is_whole else self._own_digests.get(chunk.piece, chunk.sha256)
            if chunk.sha256 != read:
                raise SourceChanged(
                    f"{chunk.path} has changed while it was loaded: what was stored of it is not what stands there",
                    hint="Load a file that nobody writes to.",
                )

    def read_files(self) -> tuple[FileResult, ...]:
        """As of any load; what the lanes have read."""
        return tuple(
            FileResult(
                each.file.name,
                self.sources[number].size or 0,
                sum(chunk.rows for chunk in self.done if chunk.piece.file == number),
                self._read[number],
                self._contents[number][1],
            )
            for number, each in enumerate(self.files)
            if number not in self._skip
        )

    def _finish(self, digests: list[str]) -> LoadResult:
        if self.target is None:
            raise AssertionError("no target")
        self._read = digests
        self.writer = WriterName.VALUES if self.options.writer is WriterName.VALUES else WriterName.COPY
        account, holder = total(self.done), self._holder
        self.progress.stage("analyze")
        changed = account.inserted + account.updated + account.deleted
        analyze_after(holder, self.target, changed, self.options.analyze)
        rejected = any(chunk.rejected for chunk in self.done)
        result = self.summary(Status.LOADED_WITH_REJECTS if rejected else Status.LOADED)
        if rejected and not forget(holder, self.load_id):
            note = "its rejected rows stay in harborctl.rejects, too: this user may not delete there"
            result = replace(result, notes=(*result.notes, note))
        read = [source for number, source in enumerate(self.sources) if number not in self._skip]
        meanings = [meaning_of(self.options, source) for source in read]
        record.finish(
            holder, self.options, result, self.target, self.started_at, standing=self.standing, meanings=meanings
        )
        self.sign(holder)
        return result

    def _what_is_in(self) -> str:
        """For people."""
        count = len(self.done)
        return f"{sum(chunk.rows for chunk in self.done):,} rows in {count} chunk{'s' * (count > 1)}"

    def failed(self, error: HarborctlError) -> LoadResult:
        """As of any load; and what is in stays in."""
        if self.done:
            goes_on = f"{self._what_is_in()} are committed: a rerun goes on there."
            error.hint = f"{error.hint} {goes_on}" if error.hint else goes_on
            error.message = error.message.removesuffix("; nothing was committed")
            error.hint = error.hint.replace("Nothing was committed. ", "")
        return Attempt.failed(self, error)

    def summary(self, status: Status) -> LoadResult:
        """As of any load, with what is committed so far."""
        result = Attempt.summary(self, status)
        rejected = sum(chunk.rejected for chunk in self.done)
        return replace(result, chunks=len(self.done), rejected=rejected, **asdict(total(self.done)))


def _place(piece: Piece) -> tuple[int, int]:
    return piece.file, piece.start


def _noted(pieces: Iterator[Piece], handed: SimpleQueue[Piece | None]) -> Iterator[Piece]:
    """The pieces, which are told to whoever reads them for their digests, too."""
    for piece in pieces:
        handed.put(piece)
        yield piece
    handed.put(None)
