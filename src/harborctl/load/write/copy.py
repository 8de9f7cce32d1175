"""The `copy` writer: encoded batches → the socket. Thin; what the bytes mean is settled in `encode`.

The stream is one COPY as long as the format stays the same, else a sequence of them, in one transaction.
"""

from __future__ import annotations

import os
import re
import select
import socket
from collections import deque
from typing import TYPE_CHECKING, cast

import psycopg
from psycopg import sql

from harborctl.db.failures import translate
from harborctl.load.write.bad_row import Written, bad_row, may_be_of_a_row
from harborctl.load.write.encode import BINARY_HEADER, BINARY_TRAILER, CopyFormat, Encoded, Encoder
from harborctl.load.write.read_ahead import read_ahead
from harborctl.load.write.staging import identifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection, Table

    from harborctl.errors import HarborctlError
    from harborctl.load.plan.plan import Plan
    from harborctl.load.write.bad_row import Progress
    from harborctl.sources.batch import Batch

# Batches kept to say where a row stands that the server refuses. The server lags behind by what the socket buffers
# hold, at most some 10 MB over TCP with large windows.
REMEMBERED_BYTES = 12 * 1024 * 1024

SEND_BUFFER_BYTES = 1024 * 1024

# "COPY orders, line 3, column price: ..." in every language of the server's: its number is the row of this COPY.
CONTEXT = re.compile(r"^COPY (?P<table>.*?), \D*(?P<row>\d+)\D*?(?:, \S+ (?P<column>.*?))?(?:: \".*)?$", re.MULTILINE)


def write_copy(
    connection: Connection,
    table: Table,
    plan: Plan,
    batches: Iterable[Batch],
    progress: Progress,
    *,
    freeze: bool = False,
) -> Written:
    """COPY all batches into `table`; with `freeze` one that this transaction has truncated, outside of savepoints.

    Raises:
        BadRow: a row cannot be stored; the transaction is lost.
        StatementFailed, ConnectionFailed: as the server or the socket has it.
    """
    driver = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
    _enlarge_buffer(driver)
    with read_ahead(Encoder(plan).encode(batches), lambda item: item.size) as encoded:
        stream = _CopyStream(driver, table, plan, progress, freeze=freeze)
        following: Encoded | None = next(encoded, None)
        while following is not None:
            following = stream.copy(following, encoded)
    return Written(stream.sent, stream.inserted)


def _enlarge_buffer(driver: psycopg.Connection[tuple[object, ...]]) -> None:
    """Let the system hold more of what is on its way to the server.

    The encoder holds Python's lock for milliseconds; what a socket of Unix holds by default lasts the server for one.
    TCP finds its own size.
    """
    with socket.socket(fileno=os.dup(driver.fileno())) as connected:
        if connected.family == socket.AF_UNIX:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


class _CopyStream:
    """The COPY statements of one load, and which batch their rows came from."""

    def __init__(
        self,
        driver: psycopg.Connection[tuple[object, ...]],
        table: Table,
        plan: Plan,
        progress: Progress,
        *,
        freeze: bool,
    ) -> None:
        self._driver = driver
        self._plan = plan
        self._progress = progress
        self._freeze = sql.SQL(", FREEZE" if freeze else "")
        self._table = identifier(table)
        self.sent = 0
        self.inserted = 0
        self._rows_of_copy = 0
        # (row number of the batch's first row in its COPY, counted from 0; batch; bytes that it was sent as)
        self._recent: deque[tuple[int, Batch, int]] = deque()
        self._recent_bytes = 0

    def copy(self, first: Encoded, rest: Iterable[Encoded]) -> Encoded | None:
        """One COPY statement: `first` and all that follow in its format. Returns the batch that begins the next."""
        self._recent.clear()
        self._rows_of_copy = 0
        try:
            with self._driver.cursor() as cursor:
                with cursor.copy(self._statement(first.format)) as copy:
                    following = self._write_stretch(copy, first, rest)
                self.inserted += cursor.rowcount
        except psycopg.Error as error:
            raise self._located(error) from error
        return following

    def _write_stretch(self, copy: psycopg.Copy, first: Encoded, rest: Iterable[Encoded]) -> Encoded | None:
        is_binary = first.format is CopyFormat.BINARY
        following: Encoded | None = None
        if is_binary:
            copy.write(BINARY_HEADER)
        self._write(copy, first)
        for encoded in rest:
            if encoded.format is not first.format or server_speaks(self._driver):
                following = encoded
                break
            self._write(copy, encoded)
        if is_binary:
            copy.write(BINARY_TRAILER)
        return following

    def _statement(self, copy_format: CopyFormat) -> sql.Composed:
        columns = sql.SQL(", ").join(map(sql.Identifier, self._plan.names))
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT {}{})")
        return statement.format(self._table, columns, sql.SQL(copy_format.value), self._freeze)

    def _write(self, copy: psycopg.Copy, encoded: Encoded) -> None:
        self._recent.append((self._rows_of_copy, encoded.batch, encoded.size))
        self._recent_bytes += encoded.size
        while self._recent_bytes - self._recent[0][2] > REMEMBERED_BYTES:
            self._recent_bytes -= self._recent.popleft()[2]
        for data in encoded.data:
            copy.write(memoryview(data))  # the driver cuts it in pieces; of bytes it would make copies
        count = encoded.batch.records.num_rows
        self._rows_of_copy += count
        self.sent += count
        self._progress.rows_sent(self.sent)

    def _located(self, error: psycopg.Error) -> HarborctlError:
        translated = translate(error)
        match = CONTEXT.search(error.diag.context or "")
        if not match or not may_be_of_a_row(translated):
            return translated
        row = int(match["row"]) - 1
        column = match["column"] if match["column"] in self._plan.names else translated.column
        for first_row, batch, _ in reversed(self._recent):
            if first_row <= row < first_row + batch.records.num_rows:
                return bad_row(translated, self._plan, batch, row - first_row, column)
        return translated


def server_speaks(driver: psycopg.Connection[tuple[object, ...]]) -> bool:
    """Whether the server has said something in mid-COPY. The driver would show an error only at the end of the data, so
    the COPY is ended to listen; if it was anything else, the next COPY goes on."""
    readable, _, _ = select.select([driver.fileno()], [], [], 0)
    return bool(readable)
