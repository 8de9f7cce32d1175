"""Loads without a process of their own: start-up is most of what a small load takes."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from harborctl.db.engine import Database
from harborctl.load.run.loader import LoadFailed, run_load
from harborctl.load.write.bad_row import Silent
from harborctl.model import LoadOptions, LoadResult, MergeOptions, Mode, OnError, RejectOptions, WriterName
from tests.conftest import ours

Rows = list[dict[str, Any]]
LoadRows = Callable[..., LoadResult]
COUNTERS = ("inserted", "updated", "unchanged", "skipped", "stale", "duplicates", "deleted", "rejected")


def csv_text(rows: Rows, columns: list[str] | None = None) -> str:
    """Rows as COPY's CSV has them: None is NULL, the empty text is quoted."""
    out = io.StringIO()
    names = columns or list(rows[0])
    csv.writer(out, lineterminator="\n").writerow(names)
    for row in rows:
        fields = [row[name] for name in names]
        out.write(",".join("" if f is None else '"' + str(f).replace('"', '""') + '"' for f in fields) + "\n")
    return out.getvalue()


def load_file(
    engine: sqlalchemy.Engine, path: Path, table: str, mode: str, *, writer: str = "auto",
    dry_run: bool = False, ledger: bool = False, on_error: str = "abort", batch_size: int = 1000,
    **merge: Any,
) -> LoadResult:  # fmt: skip
    """Load one file; `merge` are fields of `MergeOptions`."""
    options = LoadOptions(
        (str(path),),
        table=table,
        mode=Mode(mode),
        merge=MergeOptions(**merge),
        dry_run=dry_run,
        writer=WriterName(writer),
        batch_size=batch_size,
        ledger=ledger,
        rejects=RejectOptions(OnError(on_error)),
    )
    result = run_load(Database(ours(engine), "test", embedded=False), options, Silent())
    assert result.rows_read == sum(getattr(result, name) for name in COUNTERS if name != "deleted")
    return result


@pytest.fixture(name="load_rows")
def rows_loader(engine: sqlalchemy.Engine, tmp_path: Path) -> LoadRows:
    """Loads rows, given as dictionaries or as the text of a CSV file."""

    def load(rows: Rows | str, table: str, mode: str, **settings: Any) -> LoadResult:
        path = tmp_path / "rows.csv"
        path.write_text(rows if isinstance(rows, str) else csv_text(rows), newline="")
        return load_file(engine, path, table, mode, **settings)

    return load


def counts(result: LoadResult) -> dict[str, int]:
    """The counters that are not 0."""
    return {name: getattr(result, name) for name in COUNTERS if getattr(result, name)}


def refusal(load: Callable[[], object]) -> Any:
    """The error with which a load ends."""
    with pytest.raises(LoadFailed) as failed:
        load()
    return failed.value.error
