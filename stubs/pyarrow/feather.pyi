"""Feather, which is Arrow's file format by another name."""

from typing import Any

from pyarrow import Table

def write_feather(df: Table, dest: Any, compression: str | None = None, **options: Any) -> None: ...
def read_table(source: Any) -> Table: ...
