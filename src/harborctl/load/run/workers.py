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
from typing import TYPE_CHECKING, cast

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

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection as Pipe

    from sqlalchemy import Connection, RootTransaction

    from harborctl.db.engine import Database
    from harborctl.model import ConnectionOptions, LoadOptions
    from harborctl.sources.splits import Divisible, Split


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """What all workers of a load have in common.

    Attributes:
        options: with the table as the database spells it.
        digests: of files that have none by split, that of the whole.
        writers_key: the advisory lock that every transaction of this load shares, and those of its next runs.
        key: that of this attempt only.
        hashes: whether splits that can have a digest of their own are to have one.
    """

    options: LoadOptions
    load_id: str
    files: tuple[Divisible, ...]
    digests: tuple[str, ...]
    writers_key: int
    key: int
    hashes: bool


class LocalWorker:
    """One connection, of this process."""

    def __init__(self, database: Database, order: WorkOrder) -> None:
        self._database = database
        self._order = order
        self._connection: Connection | None = None
        self._transaction: RootTransaction | None = None
        self._written: list[Split] = []

    def load(self, split: Split) -> Chunk:
        """Put a split into the target; it is in once `commit` returns."""
        with translated():
            connection = self._begun()
            divided = self._order.files[split.file]
            with ExitStack() as stack:
                source = divided.open(split.start, split.end, hashes=self._order.hashes)
                stack.callback(source.close)
                options, silent = self._order.options, Silent()
                rejects = stack.enter_context(closing(Rejects())) if options.rejects.rejecting else None
                leave_users_path(connection)  # an earlier split of this transaction has taken it
                name = table_name(options, [source])
                target = locked_target(connection, name, options, has_turn=True)
                plans = make_plans(connection, target, [source], options)
                take_users_path(connection)
                rows = stream_rows([source], plans, options, rejects, silent)
                account = carry_out(connection, rows, options, rejects, silent).account
                found = rejects.read([source]) if rejects else ()
                rejected = keep(connection, self._order.load_id, split, found)
                whole, read = self._order.digests[split.file], source.result().sha256
                # What has no digest by split may be read by its name, which can be another file's by now.
                check_unchanged([divided.file])
                digest = whole or read
            # The next split of the same transaction stages anew.
            connection.execute(text("DROP TABLE IF EXISTS pg_temp.harborctl_staging CASCADE"))
            self._written.append(split)
            account = replace(account, rows_read=account.rows_read + rejected)
            return Chunk(split, divided.file.name, digest, account, rejected, is_whole=bool(whole))

    def rejects(self) -> list[Kept]:
        """The rejects of what is not committed."""
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
        """See that nothing is left which could fail at COMMIT only: deferred constraints."""
        if self._connection is not None:
            with translated():
                self._connection.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))

    def commit(self, numbered: Sequence[tuple[int, Chunk]]) -> None:
        """Commit what was loaded, with the ledger's rows of these chunks."""
        if self._transaction is None or self._connection is None:
            return
        with translated():
            for number, chunk in numbered:
                record_chunk(self._connection, self._order.load_id, number, chunk)
            self._transaction.commit()
        self._transaction = None
        self._written = []

    def close(self) -> None:
        """Roll back what was not committed, and disconnect. Safe to call twice, and from another thread."""
        if self._connection is not None:
            self._connection.close()


@dataclass(slots=True)
class WorkerProcess:
    """A worker in a process of its own."""

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

    def load(self, split: Split) -> Chunk:
        """See `LocalWorker`."""
        return cast("Chunk", self._ask("load", split))

    def rejects(self) -> list[Kept]:
        """See `LocalWorker`."""
        return cast("list[Kept]", self._ask("rejects"))

    def check(self) -> None:
        """See `LocalWorker`."""
        self._ask("check")

    def commit(self, numbered: Sequence[tuple[int, Chunk]]) -> None:
        """See `LocalWorker`."""
        self._ask("commit", list(numbered))

    def _ask(self, method: str, *arguments: object) -> object:
        try:
            self._pipe.send((method, *arguments))
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
        """See `LocalWorker`."""
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
    """The worker process: calls the methods of a local worker that it is asked for, and answers what they return."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they reach all; the one that drives us decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    logging.basicConfig(handlers=[_ToDriver(pipe)], format="%(message)s")
    with open_database(connection, migrate_embedded=False) as database:
        worker = LocalWorker(database, order)
        while True:
            try:
                method, *arguments = pipe.recv()
            except (EOFError, OSError):
                break
            try:
                answer: object = getattr(worker, method)(*arguments)
            except HarborctlError as error:
                answer = error
            except Exception as error:  # noqa: BLE001  # told to the one who asked, who reports it as a bug
                answer = RuntimeError(repr(error))
            try:
                pipe.send(answer)
            except OSError:
                break
        worker.close()


Worker = LocalWorker | WorkerProcess


def make_workers(database: Database, order: WorkOrder, jobs: int) -> list[Worker]:
    """As many as there are to be; a single one needs no process of its own."""
    if jobs == 1 or database.options is None:
        return [LocalWorker(database, order)]
    return [WorkerProcess(database.options, order) for _ in range(jobs)]
