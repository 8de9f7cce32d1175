"""How a load ended whose COMMIT was sent and never answered: the ledger's row, written with the data, knows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from harborctl.errors import ConnectionFailed
from harborctl.load.ledger import record
from harborctl.load.session.backend import end_signed

if TYPE_CHECKING:
    from sqlalchemy import Engine

# Seconds: a server that restarts after a crash replays its WAL first. Whoever waits for the answer prefers it late.
PATIENCE = 30.0
POLL = 0.5


def ended_as(engine: Engine, load_id: str, key: int) -> str | None:
    """The load's status in the ledger once its transaction, which has signed with `key`, is over; None if the database
    could not be asked."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with engine.begin() as connection:
                if not end_signed(connection, key):
                    return None
                return record.status_of(connection, load_id)
        except (DBAPIError, ConnectionFailed):
            if time.monotonic() > deadline:
                return None
            time.sleep(POLL)
