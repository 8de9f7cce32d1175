"""How a file would go into a table that is there: which column where, and which rows would be refused. Rolled back."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from harborctl.db.catalog import find_target
from harborctl.db.failures import translated
from harborctl.load.run.loader import run_load
from harborctl.load.run.prepare import make_plans, table_name
from harborctl.model import OnError
from harborctl.sources.files import find_files
from harborctl.sources.open import open_sources

if TYPE_CHECKING:
    from harborctl.db.engine import Database
    from harborctl.load.write.bad_row import Progress
    from harborctl.model import LoadOptions, RejectReason


@dataclass(frozen=True, slots=True)
class Goes:
    """A column of the file, and the one of the table that it fills; None where one of them has none."""

    source: str | None
    target: str | None
    type: str | None


@dataclass(frozen=True, slots=True)
class Fit:
    """What a load into the table would do.

    Attributes:
        reasons: why rows would be rejected.
    """

    table: str
    columns: tuple[Goes, ...]
    rows: int
    inserted: int
    rejected: int
    reasons: tuple[RejectReason, ...]


def fit(database: Database, options: LoadOptions, progress: Progress) -> Fit:
    """Load it with bad rows put aside, and roll back.

    Raises:
        HarborctlError: it cannot go in at all, as the error says.
        LoadFailed: it ends otherwise.
    """
    with ExitStack() as stack:
        sources = open_sources(options, find_files(options.sources, options.format, options.layout))
        for source in sources:
            stack.callback(source.close)
        with translated(), database.engine.begin() as connection:
            target = find_target(connection, table_name(options, sources))
            [plan] = make_plans(connection, target, sources, options)
        names = sources[0].schema.names
        goes = [
            Goes(
                names[column.position] if column.position is not None else None, column.target.name, column.target.type
            )
            for column in plan.columns
        ]
        goes += [
            Goes(None, column.name, column.type)
            for column in target.columns
            if column.name not in plan.names and not column.generated
        ]
    trial = replace(options, dry_run=True, ledger=False, rejects=replace(options.rejects, on_error=OnError.REJECT))
    result = run_load(database, trial, progress)
    return Fit(result.table, tuple(goes), result.rows_read, result.inserted, result.rejected, result.reject_reasons)
