"""Sources: what a file, a pipe or a glob holds, as a schema and a stream of batches.

A module per format. None of them knows the database: a CSV's fields are text here, with NULL told from the empty
string as COPY tells them, and what the text means is decided by the column that it goes into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from harborctl.model import SourceFormat
from harborctl.sources.files import SourceFile, find_files

if TYPE_CHECKING:
    from harborctl.model import CsvDialect, LoadOptions
    from harborctl.sources.batch import Source

__all__ = ["open_file", "open_sources"]


def open_sources(options: LoadOptions) -> list[Source]:
    """Every source that `options` names, in load order, opened far enough to know its columns.

    In a load that puts bad rows aside what comes from standard input is kept, to be read again.

    Raises:
        SourceError: one is missing, a folder, unreadable, or not of its format.
    """
    keep = options.rejects.rejecting
    return [open_file(file, options.dialect, keep=keep) for file in find_files(options.sources, options.format)]


def open_file(file: SourceFile, dialect: CsvDialect, *, keep: bool = False) -> Source:
    """One source, opened far enough to know its columns."""
    if file.format is SourceFormat.PARQUET:
        from harborctl.sources.parquet import ParquetSource

        return ParquetSource(file)
    if file.format is SourceFormat.ARROW:
        from harborctl.sources.arrow_ipc import ArrowSource

        return ArrowSource(file, keep=keep)
    if file.format is SourceFormat.JSONL:
        from harborctl.sources.json_lines import JsonLinesSource

        return JsonLinesSource(file, keep=keep)
    from harborctl.sources.csv import CsvSource

    return CsvSource(file, dialect, keep=keep)
