"""The `copy` writer on a real server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from harborctl.errors import Location
from harborctl.load.write.copy import REMEMBERED_BYTES
from tests.load.direct import LoadRows, refusal, rows_loader

__all__ = ["rows_loader"]

VALUE = "x" * 2000


def test_a_row_behind_a_change_of_format_is_located(
    database: psycopg.Connection[Any], load_rows: LoadRows, tmp_path: Path
) -> None:
    """One of so early a date travels as text, and so does its batch, behind more bytes than are remembered."""
    database.execute("CREATE TABLE t (id int CHECK (id <> 8500), d date, v text)")
    text = [f"{i},{'0044-03-15 BC' if i == 8000 else '2026-11-25'},{VALUE}\n" for i in range(9000)]
    assert sum(map(len, text[:8000])) > REMEMBERED_BYTES
    error = refusal(lambda: load_rows("id,d,v\n" + "".join(text), "t", "append"))
    assert (error.code, error.location) == ("23514", Location(str(tmp_path / "rows.csv"), 8502))
