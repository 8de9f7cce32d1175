"""Bad rows behind the one that ended a load, so that nobody puts a feed right one error a night.

Only what can be told without storing anything: records that are not of their format, NULLs, values that a column's type
does not read. The files are read once more for it, for a short while; a pipe cannot be.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from harborctl.errors import BadRow, HarborctlError
from harborctl.load.plan.plan import settle_columns
from harborctl.load.rejects.input_errors import Inputs
from harborctl.load.rejects.validate import Screen, required
from harborctl.load.write.encode import CopyFormat
from harborctl.load.write.planned_rows import planned_rows
from harborctl.model import OnError
from harborctl.sources.open import open_sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Engine

    from harborctl.load.plan.plan import Plan
    from harborctl.load.write.bad_row import Reason
    from harborctl.model import LoadOptions
    from harborctl.sources.batch import Batch, Source
    from harborctl.sources.files import SourceFile

MOST_FURTHER = 9
SECONDS = 2.0


def further_bad_rows(
    engine: Engine, options: LoadOptions, found: Sequence[SourceFile], plans: Sequence[Plan], first: BadRow
) -> tuple[HarborctlError, ...]:
    """Up to nine bad rows other than `first`, in load order, as far as they are found soon."""
    if options.rejects.rejecting or any(file.path is None for file in found):
        return ()
    search = _Search(first)
    with suppress(HarborctlError, DBAPIError, OSError), engine.connect() as connection:
        rejecting = replace(options.rejects, on_error=OnError.REJECT)
        if options.date_order is not None:
            connection.execute(select(func.set_config("DateStyle", options.date_order.upper(), True)))
        sources = open_sources(replace(options, rejects=rejecting), found)
        try:
            settle_columns(sources, plans[0].target, options)
            for source, plan in zip(sources, plans, strict=True):
                search.look_through(source, plan, Inputs(connection))
        finally:
            for source in sources:
                source.close()
    return tuple(search.found[:MOST_FURTHER])


class _Search:
    def __init__(self, first: BadRow) -> None:
        self._first = first
        self._end = time.monotonic() + SECONDS
        self.found: list[HarborctlError] = []

    def look_through(self, source: Source, plan: Plan, inputs: Inputs) -> None:
        """Look at the rows of one source until there are enough bad ones, or time is up."""
        batches = planned_rows(source, plan, self._malformed, self._bad)
        screen = Screen(plan, self._bad, required(plan), encodes=True)
        for piece in screen.slices(batches):
            if piece.encoded and piece.encoded.format is CopyFormat.TEXT:
                for row, reason in sorted(inputs.errors(plan, piece.batch).items()):
                    self._bad(piece.batch, row, reason)
            if len(self.found) >= MOST_FURTHER or time.monotonic() > self._end:
                return

    def _malformed(self, error: BadRow, before: int, record: bytes, *, splits: bool) -> None:  # noqa: ARG002  # as `Malformed` has it
        self._add(error)

    def _bad(self, batch: Batch, row: int, reason: Reason) -> None:
        if len(self.found) < MOST_FURTHER:
            place = batch.location(row)
            self._add(
                BadRow(reason.message, code=reason.code, column=reason.column, value=reason.value, location=place)
            )

    def _add(self, error: HarborctlError) -> None:
        if error.location != self._first.location:
            self.found.append(error)
