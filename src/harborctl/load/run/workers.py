"""Workers: who loads the splits of a load. A worker has one connection, and one transaction from `load` to `commit`.

There is one in this process, or several in processes of their own: reading CSV keeps a processor busy, and Python one
of them only. A worker process that loses this one rolls back and ends.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import TYPE_CHECKING, Protocol, cast

from sqlalchemy import text

from harborctl.db.engine import open_database
from harborctl.db.failures import translated
from harborctl.db.search_path import leave_users_path, take_users_path
from harborctl.errors import ConnectionFailed, HarborctlError
from harborctl.load.ledger.chunks import Chunk, record_chunk
from harborctl.load.modes import carry_out
from harborctl.load.rejects.ledger_spool import Kept, keep, kept
from harborctl.load.rejects.spool import Rejects
from harborctl.load.run.prepare import locked_target, make_plans, table_name
from harborctl.load.run.stream import stream_rows
from harborctl.load.session.backend import sign
from harborctl.load.session.locks import stay_idle
from harborctl.load.write.bad_row import Silent
from harborctl.sources.files import check_unchanged
from harborctl.sources.splits import Divisible, Piece

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection as Pipe

    from sqlalchemy import Connection, RootTransaction

    from harborctl.db.engine import Database
    from harborctl.model import ConnectionOptions, LoadOptions

# What a worker is asked for beside pieces and commits.
_REJECTS, _CHECK = "rejects", "check"


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """What all workers of a load have in common.

    Attributes:
        options: with the table as the database spells it.
        digests: of files that have none by piece, that of the whole.
        writers_key: the advisory lock that every transaction of this load shares, and those of its next runs.
        key: that of this attempt only.
        hashes: whether pieces that can have a digest of their own are to have one.
    """

    options: LoadOptions
    load_id: str
    files: tuple[Divisible, ...]
    digests: tuple[str, ...]
    writers_key: int
    key: int
    hashes: bool


class Worker(Protocol):
    """One connection of a load."""

    def load(self, piece: Piece) -> Chunk:
        """Put a piece into the target; it is in once `commit` returns."""

    def rejects(self) -> list[Kept]:
        """The rejects of what is not committed."""

    def check(self) -> None:
        """See that nothing is left which could fail at COMMIT only: deferred constraints."""

    def commit(self, numbered: Sequence[tuple[int, Chunk]]) -> None:
        """Commit what was loaded, with the ledger's rows of these chunks."""

    def close(self) -> None:
        """Roll back what was not committed, and disconnect. Safe to call twice, and from another thread."""


class LocalWorker:
    """The worker of this process."""

    def __init__(self, database: Database, order: WorkOrder) -> None:
        self._database = database
        self._order = order
        self._connection: Connection | None = None
        self._transaction: RootTransaction | None = None
        self._written: list[Piece] = []

    def load(self, piece: Piece) -> Chunk:
        """See `Worker`."""
        with translated():
            connection = self._begun()
            divided = self._order.files[piece.file]
            with ExitStack() as stack:
                source = divided.open(piece.start, piece.end, hashes=self._order.hashes)
                stack.callback(source.close)
                options = self._order.options
                rejects = stack.enter_context(closing(Rejects())) if options.rejects.rejecting else None
                leave_users_path(connection)  # an earlier piece of this transaction has taken it
                name = table_name(options, [source])
                target = locked_target(connection, name, options, has_turn=True)
                plans = make_plans(connection, target, [source], options)
                take_users_path(connection)
                rows = stream_rows([source], plans, options, rejects, Silent())
                account = carry_out(connection, rows, options, rejects, Silent()).account
                found = rejects.read([source]) if rejects else ()
                rejected = keep(connection, self._order.load_id, piece, found)
                whole, read = self._order.digests[piece.file], source.result().sha256
                # What has no digest by piece may be read by its name, which can be another file's by now.
                check_unchanged([divided.file])
                digest = whole or read
            # The next piece of the same transaction stages anew.
            connection.execute(text("DROP TABLE IF EXISTS pg_temp.harborctl_staging CASCADE"))
            self._written.append(piece)
            account = replace(account, rows_read=account.rows_read + rejected)
            return Chunk(piece, divided.file.name, digest, account, rejected, is_whole=bool(whole))

    def rejects(self) -> list[Kept]:
        """See `Worker`."""
        if self._connection is None or not self._written:
            return []
        with translated():
            return list(kept(self._connection, self._order.load_id, self._written))

    def _begun(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.engine.connect()
        if self._transaction is None:
            self._transaction = self._connection.begin()
            sign(self._connection, self._order.key, shared=True)
            stay_idle(self._connection)  # until the other workers are as far
            # Who goes on with this load after we are gone waits until this is over, one way or the other.
            sign(self._connection, self._order.writers_key, shared=True)
        return self._connection

    def check(self) -> None:
        """See `Worker`."""
        if self._connection is not None:
            with translated():
                self._connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))

    def commit(self, numbered: Sequence[tuple[int, Chunk]]) -> None:
        """See `Worker`."""
        if self._transaction is None or self._connection is None:
            return
        with translated():
            for number, chunk in numbered:
                record_chunk(self._connection, self._order.load_id, number, chunk)
            self._transaction.commit()
        self._transaction = None
        self._written = []

    def close(self) -> None:
        """See `Worker`."""
        if self._connection is not None:
            self._connection.close()


@dataclass(slots=True)
class WorkerProcess:
    """The worker of a process of its own."""

    connection: ConnectionOptions
    order: WorkOrder
    _pipe: Pipe = field(init=False)
    _process: multiprocessing.process.BaseProcess = field(init=False)

    def __post_init__(self) -> None:
        # Spawned: threads of ours and of Arrow are running, and a fork server leaves its folder behind if killed.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, self.connection, self.order), daemon=True)
        self._process.start()
        theirs.close()

    def load(self, piece: Piece) -> Chunk:
        """See `Worker`."""
        chunk = self._ask(piece)
        if not isinstance(chunk, Chunk):
            raise TypeError(f"a worker answered {chunk!r}")
        return chunk

    def rejects(self) -> list[Kept]:
        """See `Worker`."""
        found: list[Kept] = cast("list[Kept]", self._ask(_REJECTS))
        return found

    def check(self) -> None:
        """See `Worker`."""
        self._ask(_CHECK)

    def commit(self, numbered: Sequence[tuple[int, Chunk]]) -> None:
        """See `Worker`."""
        self._ask(list(numbered))

    def _ask(self, what: object) -> object:
        try:
            self._pipe.send(what)
            while isinstance(answer := self._pipe.recv(), logging.LogRecord):
                logger = logging.getLogger(answer.name)
                if logger.isEnabledFor(answer.levelno):
                    logger.handle(answer)
        except (EOFError, OSError) as error:
            raise ConnectionFailed("a worker process has ended unexpectedly", code="worker_lost") from error
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def close(self) -> None:
        """See `Worker`."""
        # One that has committed has nothing left to do; of another, the server rolls back what it did.
        self._process.kill()
        self._process.join()


class _ToDriver(QueueHandler):
    """Hands log records to the process that drives this one: it knows which ones are told, and how."""

    def __init__(self, pipe: Pipe) -> None:
        super().__init__(SimpleQueue())
        self._pipe = pipe

    def enqueue(self, record: logging.LogRecord) -> None:
        """See `QueueHandler`."""
        self._pipe.send(record)


def _work(pipe: Pipe, connection: ConnectionOptions, order: WorkOrder) -> None:
    """The worker process: answers each piece with its chunk, the question for rejects with what it has put aside, and a
    check, or a list of chunks to commit, with None once that is done."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they reach all; the one that drives us decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    logging.basicConfig(handlers=[_ToDriver(pipe)], format="%(message)s")
    with open_database(connection, migrate_embedded=False) as database:
        worker = LocalWorker(database, order)
        while True:
            try:
                asked = pipe.recv()
            except (EOFError, OSError):
                break
            try:
                answer: object = None
                if isinstance(asked, Piece):
                    answer = worker.load(asked)
                elif asked == _REJECTS:
                    answer = worker.rejects()
                elif asked == _CHECK:
                    worker.check()
                else:
                    worker.commit(asked)
            except HarborctlError as error:
                answer = error
            except Exception as error:  # noqa: BLE001  # told to the one who asked, who reports it as a bug
                answer = RuntimeError(repr(error))
            try:
                pipe.send(answer)
            except OSError:
                break
        worker.close()


def make_workers(database: Database, order: WorkOrder, jobs: int) -> list[Worker]:
    """As many as there are to be; a single one needs no process of its own."""
    if jobs == 1 or database.options is None:
        return [LocalWorker(database, order)]
    return [WorkerProcess(database.options, order) for _ in range(jobs)]
