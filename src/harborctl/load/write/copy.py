"""The `copy` writer: encoded batches → COPY, and where the row stands that ends it.

The stream is one COPY as long as the format stays the same, else a sequence of them, in one transaction.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import TYPE_CHECKING, cast

from harborctl.load.write.bad_row import Written, bad_row, may_be_of_a_row
from harborctl.load.write.encode import Encoder
from harborctl.load.write.read_ahead import read_ahead
from harborctl.load.write.transport import CopyTransport, NotTaken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import psycopg
    from sqlalchemy import Connection, Table

    from harborctl.errors import HarborctlError
    from harborctl.load.plan.plan import Plan
    from harborctl.load.write.bad_row import Progress
    from harborctl.load.write.encode import CopyFormat, Encoded
    from harborctl.sources.batch import Batch

# Batches kept to say where a row stands that the server refuses. The server lags behind by what the socket buffers
# hold, at most some 10 MB over TCP with large windows.
REMEMBERED_BYTES = 12 * 1024 * 1024

SEND_BUFFER_BYTES = 1024 * 1024


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
    _enlarge_buffer(connection)
    transport, inserted = CopyTransport(connection, table, plan, freeze=freeze), 0
    with read_ahead(Encoder(plan).encode(batches), lambda item: item.size) as encoded:
        stream = _Stream(encoded, progress)
        while (first := stream.peek()) is not None:
            try:
                inserted += transport.send(stream.of(first.format))
            except NotTaken as refused:
                raise stream.located(refused, plan) from refused.cause
    return Written(stream.sent, inserted)


def _enlarge_buffer(connection: Connection) -> None:
    """Let the system hold more of what is on its way to the server.

    The encoder holds Python's lock for milliseconds; what a socket of Unix holds by default lasts the server for one.
    TCP finds its own size.
    """
    driver = cast("psycopg.Connection[tuple[object, ...]]", connection.connection.driver_connection)
    with socket.socket(fileno=os.dup(driver.fileno())) as connected:
        if connected.family == socket.AF_UNIX:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)


class _Stream:
    """The batches of one load on their way into COPY statements, and those of the current one that the server may not
    have looked at.

    Attributes:
        sent: rows that were handed to the server.
    """

    def __init__(self, encoded: Iterator[Encoded], progress: Progress) -> None:
        self._encoded = encoded
        self._progress = progress
        self._waiting: Encoded | None = None
        self.sent = 0
        self._rows_of_copy = 0
        # (row number of the batch's first row in its COPY, counted from 0; batch; bytes that it was sent as)
        self._recent: deque[tuple[int, Batch, int]] = deque()
        self._recent_bytes = 0

    def peek(self) -> Encoded | None:
        """What comes next."""
        if self._waiting is None:
            self._waiting = next(self._encoded, None)
        return self._waiting

    def of(self, copy_format: CopyFormat) -> Iterator[Encoded]:
        """What one COPY takes. It need not take all."""
        self._recent.clear()
        self._recent_bytes = self._rows_of_copy = 0
        while (encoded := self.peek()) is not None and encoded.format is copy_format:
            self._waiting = None
            self._remember(encoded)
            yield encoded

    def _remember(self, encoded: Encoded) -> None:
        self._recent.append((self._rows_of_copy, encoded.batch, encoded.size))
        self._recent_bytes += encoded.size
        while self._recent_bytes - self._recent[0][2] > REMEMBERED_BYTES:
            self._recent_bytes -= self._recent.popleft()[2]
        count = encoded.batch.records.num_rows
        self._rows_of_copy += count
        self.sent += count
        self._progress.rows_sent(self.sent)

    def located(self, refused: NotTaken, plan: Plan) -> HarborctlError:
        """What ends the load, with the place of the row if one caused it."""
        if refused.row is not None and may_be_of_a_row(refused.error):
            for first, batch, _ in reversed(self._recent):
                if first <= refused.row < first + batch.records.num_rows:
                    return bad_row(refused.error, plan, batch, refused.row - first, refused.column)
        return refused.error
