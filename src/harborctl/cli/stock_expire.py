"""`harborctl stock expire`: once, as cron has it, or as a service that stays."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from harborctl.cli.invocation import Invocation
from harborctl.cli.notify_options import MetricsOption, PingOption
from harborctl.cli.stopping import stopping
from harborctl.errors import HarborctlError, Interrupted
from harborctl.plain_text import as_json

if TYPE_CHECKING:
    from harborctl.cli.stopping import Stop
    from harborctl.db.engine import Database
    from harborctl.jobs.notify import Outcome, Watchers
    from harborctl.stock.expire import Expired

EXAMPLES = """
[bold]Examples[/bold]

  harborctl stock expire

  harborctl stock expire --watch 10 --metrics-file /var/lib/node_exporter/expire.prom
"""

NAME = "stock expire"


def expire(
    invocation: Invocation,
    *,
    batch: Annotated[int, typer.Option("--batch", metavar="N", min=1, help="Reservations in one transaction.")] = 1000,
    watch: Annotated[
        float | None,
        typer.Option("--watch", metavar="SECONDS", min=0.1, help="Stay, and look again after so many seconds."),
    ] = None,
    metrics_file: MetricsOption = None,
    ping: PingOption = None,
) -> None:
    """End reservations whose time is over, and give their pieces back. Prints nothing if there are none.

    Several hosts may do it at once. With --watch it outlives restarts of the server; when it is asked to end (SIGTERM,
    Ctrl-C) it finishes its transaction, and its exit code is 0.
    """
    from harborctl.db.engine import open_database
    from harborctl.jobs.notify import Watchers
    from harborctl.stock.transaction import check_database

    watchers = Watchers(ping, metrics_file)
    with stopping() as stop, open_database(invocation.connection) as database:
        expiry = _Expiry(invocation, database, batch, stop)
        if watch is None:
            expiry.once(watchers)
        else:
            check_database(database.engine, invocation.note)  # what is wrong from the start does not pass
            expiry.repeat(watchers, watch)


class _Expiry:
    """Expires and tells, once or again and again. Counts are of all rounds so far."""

    def __init__(self, invocation: Invocation, database: Database, batch: int, stop: Stop) -> None:
        from harborctl.stock.expire import Expired

        self._invocation = invocation
        self._database = database
        self._batch = batch
        self._stop = stop
        self._total = Expired()

    def once(self, watchers: Watchers) -> None:
        from harborctl.jobs.notify import told
        from harborctl.stock.transaction import check_database, tried_again

        with told(watchers, NAME, self._invocation.note) as outcome:
            check_database(self._database.engine, self._invocation.note)
            started = time.monotonic()
            tried_again(lambda: self._round(outcome), self._invocation.note, sleep=self._stop.wait)
            if self._stop.requested:
                raise Interrupted(f"interrupted: {self._total.reservations:,} reservations have been expired")
        if self._total.reservations or self._invocation.json:
            self._tell(self._total, started)

    def repeat(self, watchers: Watchers, seconds: float) -> None:
        from harborctl.jobs.notify import told
        from harborctl.stock.transaction import may_pass, pause

        failures = 0
        while not self._stop.requested:
            before, started, wait = self._total, time.monotonic(), seconds
            try:
                with told(watchers, NAME, self._invocation.note) as outcome:
                    self._round(outcome)
                failures = 0
            except HarborctlError as error:
                if not may_pass(error):
                    raise
                failures += 1
                wait = pause(failures)
                self._invocation.note(f"{error.message}: trying again in {wait:.1f} s")
            if self._total != before:
                self._tell(self._total - before, started)
            self._stop.wait(wait)

    def _round(self, outcome: Outcome) -> None:
        """End what is overdue now, or as much of it as is ended when somebody asks to stop."""
        from harborctl.db import pool
        from harborctl.stock.expire import expire as expire_overdue

        try:
            for done in expire_overdue(self._database.engine, self._batch):
                self._total += done
                if self._stop.requested:
                    return
        finally:
            outcome.measures |= {
                "expired_reservations": ("Reservations that this run has ended so far.", self._total.reservations),
                "expired_pieces": ("Pieces that this run has given back so far.", self._total.pieces),
                **pool.measures(self._database.engine),
            }

    def _tell(self, done: Expired, started: float) -> None:
        with self._invocation.telling():
            if self._invocation.json:
                document = {"status": "expired", **asdict(done), "seconds": round(time.monotonic() - started, 3)}
                self._invocation.write(as_json({**document, "database": self._database.url, "error": None}) + "\n")
            elif not self._invocation.quiet:
                one = done.reservations == 1
                self._invocation.write(
                    f"expired {done.reservations:,} reservation{'' if one else 's'}, of {done.pieces:,} pieces\n"
                )
