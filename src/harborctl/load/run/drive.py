"""Hands the splits of a load to its workers, and lets them commit: each chunk once it is due, or all at the end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import accumulate
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harborctl.db.failures import translate
from harborctl.errors import ConnectionFailed, HarborctlError, SourceChanged
from harborctl.load.rejects.ledger_spool import KeptRejects
from harborctl.load.run.transaction import check_expected
from harborctl.load.run.workers import make_workers
from harborctl.load.session.backend import HOLDERS, end_signed
from harborctl.sources.files import check_unchanged
from harborctl.sources.splits import Split, SplitDigests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from concurrent.futures import Future

    from sqlalchemy import Connection

    from harborctl.load.ledger.chunks import Chunk
    from harborctl.load.run.context import Attempt
    from harborctl.load.run.workers import Worker, WorkOrder
    from harborctl.load.write.bad_row import Progress

# Seconds after which a worker that waits for another looks whether that has failed.
POLL = 0.1

# Seconds after which it is looked whether workers wait for each other.
WATCH = 1.0

# Workers that wait for the end of another's transaction.
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
LOCKS_LOST = "the session that held the locks of this load was ended"
SAME_KEY = "rows in different parts of the source have the same key"


class WorkersMeet(Exception):
    """Several connections cannot load this."""


class _Holder:
    """The session that holds the locks of a load and watches its workers, whose transactions have signed with `key`.
    Threads take turns at it."""

    def __init__(self, connection: Connection, key: int) -> None:
        self._connection = connection
        self._key = key
        self._lock = threading.Lock()
        self._failure: HarborctlError | None = None

    @contextmanager
    def turn(self) -> Iterator[Connection]:
        """Its connection, for this block.

        Raises:
            ConnectionFailed: the session was ended, and its locks are lost.
            HarborctlError: a statement failed.
        """
        with self._lock:
            if self._failure is None and self._connection.invalidated:  # Ctrl-C, in the midst of a statement
                self._failure = ConnectionFailed(LOCKS_LOST, code="connection_lost")
            if self._failure is not None:
                raise self._failure
            try:
                yield self._connection
            except DBAPIError as error:
                # The transaction has failed: whoever comes later is told of the cause, not of what follows from it.
                self._failure = translate(error)
                if isinstance(self._failure, ConnectionFailed):
                    self._failure.message = f"{LOCKS_LOST}: {self._failure.message}"
                raise self._failure from error

    def check(self) -> None:
        """Before each COMMIT: whose locks are lost is not alone any more.

        Raises:
            ConnectionFailed: they are.
        """
        with self.turn() as connection:
            connection.execute(text("SELECT 1"))

    def sees_workers_wait(self) -> bool:
        """Whether one of them waits for another."""
        with self.turn() as connection:
            return bool(connection.execute(_WAITING_WRITERS, {"key": self._key}).scalar_one())

    def end_workers(self, kind: type[BaseException] | None, *_: object) -> None:
        """After a failure: end what the server still does for workers that were closed at their work. It would notice,
        and give back its locks, when its statement is over."""
        if kind is None:
            return
        with suppress(HarborctlError), self.turn() as connection:
            end_signed(connection, self._key)
            return
        with suppress(DBAPIError, HarborctlError), self._connection.engine.begin() as connection:
            end_signed(connection, self._key)


class Handing:
    """The splits of a load as they are handed out, in their order, numbered from `first`. Threads share it."""

    def __init__(self, splits: Iterator[Split], first: int, progress: Progress) -> None:
        self.first = first
        self._splits = enumerate(splits, first)
        self._progress = progress
        self._lock = threading.Lock()
        self._handed: SimpleQueue[Split | None] = SimpleQueue()
        self._failures: list[tuple[tuple[int, int], BaseException]] = []
        self._rows = 0
        self.ended = False

    def end(self) -> None:
        """Hand out no more."""
        self.ended = True

    def take(self) -> tuple[int, Split] | None:
        """The next split and its number; None if there is none, or no more is to be loaded."""
        with self._lock:
            taken = None if self.ended else next(self._splits, None)
            self._handed.put(taken[1] if taken else None)
            return taken

    def handed(self) -> Split | None:
        """The next of the splits that have been taken, for whoever reads along."""
        while not self.ended:
            with suppress(Empty):
                return self._handed.get(timeout=POLL)
        return None

    def loaded(self, chunk: Chunk) -> None:
        """Tell of its rows."""
        with self._lock:
            self._rows += chunk.rows
            self._progress.rows_sent(self._rows)

    def fail(self, split: Split | None, error: BaseException) -> None:
        """A split could not be loaded, or its successor not be read."""
        with self._lock:
            self._failures.append((_place(split) if split else (0, 0), error))
            self.end()

    def has_failed_behind(self, split: Split) -> bool:
        """Whether splits have failed, and all of them stand behind this one."""
        with self._lock:
            return bool(self._failures) and all(_place(split) < place for place, _ in self._failures)

    def raise_first(self, *, among_several: bool) -> None:
        """Raise what has failed first in the order of the source.

        Raises:
            WorkersMeet: `among_several` workers, two were in each other's way.
        """
        if not self._failures:
            return
        _, error = min(self._failures, key=lambda failure: failure[0])
        codes = {each.code for _, each in self._failures if isinstance(each, HarborctlError)}
        if among_several and DEADLOCK in codes:
            raise WorkersMeet(SAME_KEY) from error
        raise error


def _place(split: Split) -> tuple[int, int]:
    return split.file, split.start


def load_splits(
    attempt: Attempt, connection: Connection, order: WorkOrder, handing: Handing, done: list[Chunk]
) -> list[str]:
    """Load and commit all that is missing. Returns the digest of each file."""
    run, holder, before = attempt.context.options.run, _Holder(connection, order.key), len(done)
    with ThreadPoolExecutor(1) as hashing, ExitStack() as stack:
        stack.callback(handing.end)
        reading = hashing.submit(_read_digests, order, handing)
        stack.push(holder.end_workers)
        workers = make_workers(attempt.context.database, order, run.jobs)
        for worker in workers:
            stack.callback(worker.close)
        if run.commit_every:
            _load_and_commit(attempt, holder, workers, handing, done)
            _check_stored(done[before:], reading.result().splits)
            _settle_rejects(attempt, holder, done, [])
        else:
            _load_then_commit(attempt, holder, workers, handing, done, reading)
        return reading.result().files


def _load_and_commit(
    attempt: Attempt, holder: _Holder, workers: list[Worker], handing: Handing, done: list[Chunk]
) -> None:
    """Each chunk commits as soon as it and all before it are written, so that what is in is how the load begins.

    The limit of rejects is judged of what was read so far: what would exceed it is not committed.
    """
    limit = attempt.context.options.rejects.limit
    due, turn = handing.first, threading.Condition()

    def step(worker: Worker, number: int, split: Split) -> Chunk:
        nonlocal due
        chunk = worker.load(split)
        with turn:
            while due != number:
                if handing.ended and not handing.has_failed_behind(split):
                    return chunk
                turn.wait(POLL)
            written = [*done, chunk]
            if limit is not None and not limit.allows(sum(c.rejected for c in written), sum(c.rows for c in written)):
                _settle_rejects(attempt, holder, written, [worker])
            check_unchanged(attempt.found)
            holder.check()
            worker.commit([(number, chunk)])
            done.append(chunk)
            due += 1
            turn.notify_all()
        return chunk

    _drive(workers, handing, holder, step)


def _load_then_commit(
    attempt: Attempt,
    holder: _Holder,
    workers: list[Worker],
    handing: Handing,
    done: list[Chunk],
    read: Future[_Digests],
) -> None:
    """Nothing commits before all is written, and read for its digest."""
    written: list[tuple[Worker, Chunk]] = []

    def step(worker: Worker, _: int, split: Split) -> Chunk:
        chunk = worker.load(split)
        written.append((worker, chunk))
        return chunk

    _drive(workers, handing, holder, step)
    whole = read.result().files
    attempt.context.progress.stage("commit")
    every = sorted([*done, *(chunk for _, chunk in written)], key=lambda chunk: _place(chunk.split))
    rows = list(accumulate((chunk.rows for chunk in every), initial=0))
    first_rows = {chunk.split: before + 1 for chunk, before in zip(every, rows, strict=False)}
    check_expected(attempt.context.options, rows[-1])
    _settle_rejects(attempt, holder, every, workers)
    if len(workers) > 1:
        for worker in workers:
            worker.check()
    check_unchanged(attempt.found)
    holder.check()
    number = handing.first
    for worker in workers:
        own = [replace(chunk, sha256=whole[chunk.split.file], is_whole=True) for by, chunk in written if by is worker]
        placed = [replace(chunk, split=replace(chunk.split, first_row=first_rows[chunk.split])) for chunk in own]
        worker.commit(list(enumerate(placed, number)))
        number += len(placed)
        done += placed


def _drive(
    workers: list[Worker], handing: Handing, holder: _Holder, step: Callable[[Worker, int, Split], Chunk]
) -> None:
    """Give each worker the next split until there are none, or one fails. The others end what they have begun: chunks
    that stand before the failure commit, and of several bad rows the first is told.

    Raises:
        WorkersMeet: one worker waits for what another has written, which commits only when all, or those before it, do.
    """

    def work(worker: Worker) -> None:
        split: Split | None = None
        try:
            while taken := handing.take():
                number, split = taken
                handing.loaded(step(worker, number, split))
        except BaseException as error:  # noqa: BLE001  # raised again when all workers have ended
            handing.fail(split, error)

    if len(workers) == 1:
        work(workers[0])
        handing.raise_first(among_several=False)
        return
    with ThreadPoolExecutor(len(workers)) as pool:
        futures = [pool.submit(work, worker) for worker in workers]
        try:
            while wait(futures, WATCH).not_done:
                if holder.sees_workers_wait():
                    raise WorkersMeet(SAME_KEY)
            handing.raise_first(among_several=True)
        except BaseException:  # Ctrl-C, too
            handing.end()
            for worker in workers:
                worker.close()
            raise


def _settle_rejects(attempt: Attempt, holder: _Holder, written: Sequence[Chunk], pending: Sequence[Worker]) -> None:
    """Write the reject file of these chunks, of which those of `pending` workers are not committed, and judge."""
    if attempt.ending is None:
        return
    attempt.context.progress.stage("rejects")
    if count := sum(chunk.rejected for chunk in written):
        not_in = [one for worker in pending for one in worker.rejects()]
        with holder.turn() as connection:
            rejects = KeptRejects(connection, attempt.context.load_id, not_in, count)
            attempt.ending.settle(rejects, sum(chunk.rows for chunk in written))


@dataclass(frozen=True, slots=True)
class _Digests:
    """Of each file, and of splits that have one of their own."""

    files: list[str]
    splits: dict[Split, str]


def _read_digests(order: WorkOrder, handing: Handing) -> _Digests:
    """The digests of all files, read beside the load, and in the same reading those of the splits as they are handed
    out: so the digest of the whole is one of what is stored."""
    digests, own, split = list(order.digests), dict[Split, str](), handing.handed()
    for number, each in enumerate(order.files):
        if digests[number] == "":
            with closing(SplitDigests(each)) as reading:
                while split is not None and split.file == number:
                    if order.hashes:
                        own[split] = reading.of(split.start, split.end)
                    split = handing.handed()
                digests[number] = "" if handing.ended else reading.whole()
        while split is not None and split.file == number:
            split = handing.handed()
    return _Digests(digests, own)


def _check_stored(stored: Sequence[Chunk], own: Mapping[Split, str]) -> None:
    """See that what was stored is what the whole, whose digest the ledger gets, consists of.

    Raises:
        SourceChanged: it is not.
    """
    for chunk in stored:
        read = chunk.sha256 if chunk.is_whole else own.get(chunk.split, chunk.sha256)
        if chunk.sha256 != read:
            raise SourceChanged(
                f"{chunk.path} has changed while it was loaded: what was stored of it is not what stands there",
                hint="Load a file that nobody writes to.",
            )
