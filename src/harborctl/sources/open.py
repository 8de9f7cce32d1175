"""Sources: what a file, a pipe or a glob holds, as a schema and a stream of batches.

A module per format. None of them knows the database: a CSV's fields are text here, with NULL told from the empty
string as COPY tells them, and what the text means is decided by the column that it goes into.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from harborctl.errors import UsageError
from harborctl.model import SourceFormat
from harborctl.sources.files import SourceFile, find_files
from harborctl.sources.in_turn import OpenedInTurn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from harborctl.model import CsvDialect, LoadOptions
    from harborctl.sources.batch import Source
    from harborctl.sources.files import ByteStream

__all__ = ["open_file", "open_sources", "refuse_strange_options"]

_DIALECT = frozenset({SourceFormat.CSV, SourceFormat.TSV})
# What a format other than CSV and TSV knows of a dialect.
_KNOWN = {
    SourceFormat.JSONL: {"encoding", "max_record_bytes"},
    SourceFormat.JSON: {"encoding", "max_record_bytes"},
    SourceFormat.XLSX: {"header", "columns", "skip_lines"},
    SourceFormat.ODS: {"header", "columns", "skip_lines"},
    SourceFormat.FIXED: {
        "encoding",
        "max_record_bytes",
        "header",
        "columns",
        "skip_lines",
        "nulls",
        "skip_blank_lines",
    },
    SourceFormat.COPY: {"encoding", "max_record_bytes", "columns"},
}
# Which formats an option of the layout is about.
_LAYOUTS = {
    "sheet": (SourceFormat.XLSX, SourceFormat.ODS),
    "range": (SourceFormat.XLSX, SourceFormat.ODS),
    "records": (SourceFormat.JSON,),
    "flatten": (SourceFormat.JSON,),
    "widths": (SourceFormat.FIXED,),
}
_OPTIONS = {"nulls": "--null", "header": "--no-header"}


# Of so many files each is open from the start; of more, only one at a time. A process may often have no more than 1024
# files open, and each of them holds what was read of it.
OPEN_AT_ONCE = 32


def open_sources(
    options: LoadOptions, found: Sequence[SourceFile] | None = None, most_open: int = OPEN_AT_ONCE
) -> list[Source]:
    """Every source that `options` names, or was found of them, in load order, opened far enough to know its columns.

    In a load that puts bad rows aside what can be read only once is kept, to be read again.

    Raises:
        SourceError: one is missing, a folder, unreadable, or not of its format.
    """
    files = find_files(options.sources, options.format, options.layout) if found is None else found
    refuse_strange_options(options.dialect, files)
    open_at_once = len(files) <= most_open
    sources: list[Source] = []
    try:
        for file in files:
            opened = partial(open_file, file, options.dialect, keep=options.rejects.rejecting)
            sources.append(opened() if open_at_once or file.path is None else OpenedInTurn(opened))
    except BaseException:  # Ctrl-C, too
        for source in sources:
            source.close()
        raise
    return sources


def refuse_strange_options(dialect: CsvDialect, files: Sequence[SourceFile]) -> None:
    """Of sources of several formats one that knows an option is enough.

    Raises:
        UsageError: an option of the dialect means nothing to any of these files.
    """
    formats = {file.format for file in files}
    for name in files[0].layout.given() if files else ():
        if not formats.intersection(_LAYOUTS[name]):
            wanted = " and ".join(_LAYOUTS[name])
            raise UsageError(
                f"--{name} is about {wanted}, and {files[0].name} is read as {files[0].format}",
                code="option_of_other_format",
                hint=f"Leave it out, or say --format {_LAYOUTS[name][0]}.",
            )
    if formats & _DIALECT:
        return
    for name in dialect.given():
        if not any(name in _KNOWN.get(each, ()) for each in formats):
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            raise UsageError(
                f"{option} is about CSV, and {files[0].name} is read as {files[0].format}",
                code="option_of_other_format",
                hint=f"Leave it out; if the file is CSV, say --format {SourceFormat.CSV}.",
            )


def open_file(file: SourceFile, dialect: CsvDialect, *, keep: bool = False) -> Source:
    """One source, opened far enough to know its columns."""
    if file.format is SourceFormat.PARQUET:
        from harborctl.sources.parquet import ParquetSource

        return ParquetSource(file)
    if file.format is SourceFormat.ARROW:
        from harborctl.sources.arrow_ipc import ArrowSource

        return ArrowSource(file, keep=keep)
    if file.format in {SourceFormat.JSONL, SourceFormat.JSON}:
        from harborctl.sources.jsonl import JsonLinesSource

        limit = dialect.max_record_bytes
        return JsonLinesSource(file, dialect.encoding, keep=keep, max_record_bytes=limit, convert=_as_lines(file))
    if file.format in {SourceFormat.XLSX, SourceFormat.ODS}:
        from harborctl.sources.workbook.source import WorkbookSource

        return WorkbookSource(file, file.layout, dialect)
    if file.format is SourceFormat.FIXED:
        from harborctl.sources.fixed_width import FixedWidth
        from harborctl.sources.lines import LineSource

        return LineSource(file, dialect, FixedWidth(file.layout.widths, dialect), keep=keep)
    if file.format is SourceFormat.COPY:
        from harborctl.sources.copy_text import CopyText
        from harborctl.sources.lines import LineSource

        return LineSource(file, dialect, CopyText(dialect), keep=keep)
    from harborctl.sources.csv.source import CsvSource

    return CsvSource(file, dialect, keep=keep)


def _as_lines(file: SourceFile) -> Callable[[ByteStream], ByteStream] | None:
    if file.format is not SourceFormat.JSON:
        return None
    from harborctl.sources.json_document import JsonDocument

    path = file.layout.records.split(".") if file.layout.records else []
    return lambda text: JsonDocument(text, file.name, path, flatten=file.layout.flatten)
