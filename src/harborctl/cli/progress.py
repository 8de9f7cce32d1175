"""How far a load is: a bar on a terminal, silence elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress as Bar

    from harborctl.cli.invocation import Invocation
    from harborctl.load.write.bad_row import Progress


class BarProgress:
    """Bytes, rows, rows/s and time left, in one line on stderr."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("load", total=None, rows=0, rate=0)

    def start(self, total_bytes: int | None) -> None:
        """See `Progress`."""
        self._bar.update(self._task, total=total_bytes)

    def bytes_read(self, count: int) -> None:
        """See `Progress`."""
        self._bar.update(self._task, completed=count)

    def rows_sent(self, count: int) -> None:
        """See `Progress`."""
        elapsed = self._bar.tasks[self._task].elapsed or 0.0
        self._bar.update(self._task, rows=count, rate=int(count / elapsed) if elapsed else 0)

    def stage(self, what: str) -> None:
        """See `Progress`."""
        self._bar.update(self._task, description=what)


@contextmanager
def load_progress(invocation: Invocation) -> Iterator[Progress]:
    """A bar where a person watches stderr, else silence: a cron log gets the summary."""
    if invocation.quiet or not invocation.err.is_terminal:
        from harborctl.load.write.bad_row import Silent

        yield Silent()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:>6}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TextColumn("{task.fields[rows]:,} rows", markup=False),
        TextColumn("{task.fields[rate]:,} rows/s", markup=False),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=invocation.err, transient=True) as bar:
        yield BarProgress(bar)
