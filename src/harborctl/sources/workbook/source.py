"""Sheets of workbooks, Excel's and OpenDocument's, by calamine: cells as text, in the input syntax of the database.

A workbook is read whole: its parts are compressed XML. A number is the shortest text that means it, a date ISO, an
empty cell NULL, a formula its last value, and one that failed the text that Excel shows for it, such as `#DIV/0!`,
which no column but one of text takes. A line is the row as the program numbers it. Blank rows are passed over.
"""

from __future__ import annotations

import zipfile
from functools import partial
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.errors import SourceError, UsageError
from harborctl.sources.batch import Batch, Original
from harborctl.sources.csv.records import csv_record
from harborctl.sources.files import HASH_BLOCK_BYTES
from harborctl.sources.read_again import Rereadable
from harborctl.sources.workbook.cells import Range, text_of
from harborctl.sources.workbook.failed import failed_cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from python_calamine import CalamineSheet

    from harborctl.model import CsvDialect, FileResult, LayoutOptions
    from harborctl.sources.batch import Malformed
    from harborctl.sources.files import SourceFile

BATCH_ROWS = 4096
# Unpacked, a workbook larger than this is no workbook: the largest sheet has a million rows.
MAX_UNPACKED_BYTES = 8 * 1024**3
_ENCRYPTED = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


class WorkbookSource:
    """A sheet, or a range of one, as text columns. See `Source` for the attributes."""

    def __init__(self, file: SourceFile, layout: LayoutOptions, dialect: CsvDialect) -> None:
        self.name = file.name
        self.size = file.size
        self.format = file.format
        self._file = Rereadable(file)
        self._count = 0
        try:
            content = self._content()
            self._sheet_rows = self._sheet(content, layout.sheet)
            self._failed = failed_cells(content, self._sheet_rows.name)
            self._range = Range.read(layout.range, self._sheet_rows)
            self._skipped = dialect.skip_lines + dialect.header
            names = self._names(dialect)
        except BaseException:  # Ctrl-C, too
            self.close()
            raise
        self.named = dialect.header or bool(dialect.columns)
        self.schema = pa.schema([pa.field(name, pa.string()) for name in names])

    def _names(self, dialect: CsvDialect) -> Sequence[str]:
        """What the columns are called."""
        _, first = next(islice(self._rows(), dialect.skip_lines, None), (0, None))
        if first is None:
            raise SourceError(f"sheet {self._sheet_rows.name} of {self.name} has no rows there", code="empty_file")
        if dialect.columns and len(dialect.columns) != len(first):
            raise UsageError(
                f"--columns names {len(dialect.columns)} columns, but {self.name} has {len(first)}",
                code="column_count",
            )
        if dialect.columns:
            return dialect.columns
        return [text or "" for text in first] if dialect.header else [f"column {n}" for n in range(1, len(first) + 1)]

    def batches(
        self,
        columns: Sequence[int],
        direct: Sequence[pa.DataType | None] = (),  # noqa: ARG002  # as `Source` has it
        malformed: Malformed | None = None,  # noqa: ARG002  # no row of a sheet is
    ) -> Iterator[Batch]:
        """See `Source.batches`."""
        rows = islice(self._rows(), self._skipped, None)
        while some := list(islice(rows, BATCH_ROWS)):
            arrays = [pa.array([fields[column] for _, fields in some], pa.string()) for column in columns]
            records = pa.RecordBatch.from_arrays(arrays, names=[str(column) for column in columns])
            lines = [line for line, _ in some]
            row_of = partial(int.__add__, self._count)
            self._count += len(some)
            yield Batch(records, self.name, lines.__getitem__, row_of=row_of)

    def originals(self, rows: Iterable[int]) -> Iterator[Original]:
        """See `Source.originals`: the rows as CSV."""
        found, next_row = islice(self._rows(), self._skipped, None), 0
        for row in rows:
            line, fields = next(islice(found, row - next_row, None))
            next_row = row + 1
            yield Original(line, csv_record(fields))

    def position(self) -> int:
        """See `Source.position`."""
        return self._file.raw.position

    def result(self) -> FileResult:
        """See `Source.result`."""
        return self._file.result(self.name, self._count)

    def close(self) -> None:
        """See `Source.close`."""
        self._file.close()

    def _content(self) -> bytes:
        pieces = []
        while data := self._file.content.read(HASH_BLOCK_BYTES):
            pieces.append(data)
        return b"".join(pieces)

    def _sheet(self, content: bytes, wanted: str | None) -> CalamineSheet:
        from python_calamine import CalamineError, SheetVisibleEnum, load_workbook

        if content.startswith(_ENCRYPTED):
            raise SourceError(
                f"{self.name} is protected by a password, or of Excel 97",
                code="bad_workbook",
                hint="Save it without a password as .xlsx, and load that.",
            )
        try:
            with zipfile.ZipFile(BytesIO(content)) as parts:
                size = sum(part.file_size for part in parts.infolist())
            if size > MAX_UNPACKED_BYTES:
                raise SourceError(f"{self.name} unpacks to {size:,} bytes: no workbook does", code="bad_workbook")
            book = load_workbook(BytesIO(content))
            names = book.sheet_names
            if wanted is not None:
                chosen = _chosen(wanted, names)
                if chosen is None:
                    raise SourceError(
                        f"{self.name} has no sheet {wanted}",
                        code="no_such_sheet",
                        hint=f"Its sheets are {', '.join(names)}.",
                    )
                return book.get_sheet_by_name(chosen)
            visible = {each.name for each in book.sheets_metadata if each.visible == SheetVisibleEnum.Visible}
            filled = [sheet for sheet in map(book.get_sheet_by_name, names) if sheet.height and sheet.name in visible]
        except (CalamineError, zipfile.BadZipFile, ValueError, OSError) as error:
            raise SourceError(
                f"{self.name} is not a readable workbook: {error}",
                code="bad_workbook",
                hint="Fetch the file again: it may have been cut short. Another format is named by --format.",
            ) from error
        if len(filled) > 1:
            raise UsageError(
                f"{self.name} has {len(filled)} sheets with rows",
                code="several_sheets",
                hint=f"Say --sheet '{filled[0].name}'. The others are {', '.join(each.name for each in filled[1:])}.",
            )
        if not filled:
            raise SourceError(f"{self.name} has no sheet with rows", code="empty_file")
        return filled[0]

    def _rows(self) -> Iterator[tuple[int, list[str | None]]]:
        """Each row that is not blank, with its number."""
        sheet, wanted = self._sheet_rows, self._range
        if sheet.start is None:
            return
        first_column = sheet.start[1]
        for number, cells in enumerate(sheet.iter_rows()):
            if number < wanted.top or number > wanted.bottom:
                continue
            padded = [""] * first_column + list(cells)
            padded += [""] * (wanted.right + 1 - len(padded))
            texts = [text_of(cell) for cell in padded[wanted.left : wanted.right + 1]]
            for column, text in self._failed.get(number, {}).items():
                if wanted.left <= column <= wanted.right:
                    texts[column - wanted.left] = text
            if any(text is not None for text in texts):
                yield number + 1, texts


def _chosen(wanted: str, names: Sequence[str]) -> str | None:
    """A sheet by its name, or by its number from 1."""
    if wanted in names:
        return wanted
    return names[int(wanted) - 1] if wanted.isdecimal() and 0 < int(wanted) <= len(names) else None
