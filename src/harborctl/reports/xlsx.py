"""Writes a result as a spreadsheet of one sheet, through XlsxWriter (the extra `xlsx`).

A row goes to disk when it is written, so that memory stays flat. Numbers, booleans, dates and timestamps become what
Excel calls so, as long as it can say them exactly; everything else is text, and never a formula or a link.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from datetime import date, datetime
from typing import IO, TYPE_CHECKING, Any

from harborctl.errors import HarborctlError, UsageError
from harborctl.reports.result import Kind

if TYPE_CHECKING:
    from harborctl.reports.result import Column, Result

# https://support.microsoft.com/office/excel-specifications-and-limits-1672b34d-7043-467e-8e27-269d656771c3
MOST_ROWS = 1_048_576
MOST_CHARACTERS = 32_767
MOST_DIGITS = 15
FIRST_YEAR = 1900
SMALLEST = 2.2250738585072014e-308
_TIMESTAMP = "timestamp without time zone"


def write_xlsx(result: Result, title: str, stream: IO[bytes]) -> None:
    """Write the result; `title` goes into the document's properties.

    Raises:
        UsageError: XlsxWriter is not installed.
        HarborctlError: there is more than a sheet can hold.
    """
    try:
        import xlsxwriter
    except ImportError:
        raise UsageError(
            "writing xlsx needs the extra `xlsx`", code="no_extra", hint="pip install 'harborctl[xlsx]'"
        ) from None
    with tempfile.TemporaryFile() as held:
        book = xlsxwriter.Workbook(held, {"constant_memory": True})
        book.set_properties({"title": title})
        try:
            _fill(book, result)
        finally:
            book.close()  # also after a failure: it has temporary files of its own
        held.seek(0)
        shutil.copyfileobj(held, stream)


def _fill(book: Any, result: Result) -> None:
    sheet = book.add_worksheet()
    sheet.freeze_panes(1, 0)
    head = book.add_format({"bold": True, "bottom": 1})
    formats = [book.add_format({"num_format": _format(column)}) for column in result.columns]
    fine = book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss.000"})
    for index, column in enumerate(result.columns):
        sheet.set_column(index, index, 14 if column.kind is Kind.NUMBER else 20)
        sheet.write_string(0, index, column.name, head)
    rows = (row for batch in result.batches for row in batch)
    for number, row in enumerate(rows, start=1):
        if number >= MOST_ROWS:
            raise HarborctlError(
                f"a sheet holds {MOST_ROWS:,} rows and no more",
                code="too_many_rows",
                hint="Take --limit, or --format csv or parquet.",
            )
        for index, text in enumerate(row):
            if text is not None:
                value = _value(result.columns[index], text, number)
                split_second = isinstance(value, datetime) and value.microsecond
                _put(sheet, number, index, value, fine if split_second else formats[index])


def _format(column: Column) -> str:
    if column.type == "date":
        return "yyyy-mm-dd"
    return "yyyy-mm-dd hh:mm:ss" if column.type == _TIMESTAMP else "General"


def _put(sheet: Any, row: int, index: int, value: float | bool | date | str, style: Any) -> None:
    if isinstance(value, bool):
        sheet.write_boolean(row, index, value)
    elif isinstance(value, (int, float)):
        sheet.write_number(row, index, value)
    elif isinstance(value, date):
        sheet.write_datetime(row, index, value, style)
    else:
        sheet.write_string(row, index, value)


def _value(column: Column, text: str, row: int) -> float | bool | date | str:
    # Excel counts UTF-16 units, and XlsxWriter cuts off what is more without a word.
    if len(text) > MOST_CHARACTERS // 2 and len(text.encode("utf-16-le")) // 2 > MOST_CHARACTERS:
        raise HarborctlError(
            f"a cell holds {MOST_CHARACTERS:,} characters (of UTF-16), and row {row} has more",
            code="bad_value",
            column=column.name,
            hint="Shorten the column in the report, or take another format.",
        )
    if column.delimiter is not None:
        return text
    if column.kind is Kind.BOOLEAN:
        return text == "t"
    if column.kind is Kind.NUMBER:
        return _number(text)
    return _moment(column, text)


def _number(text: str) -> float | str:
    """The number if Excel keeps it as it is: it has no NaN, no minus zero, and nothing as small as a float can be."""
    digits = sum(character.isdigit() for character in text.partition("e")[0])
    if not text[-1].isdigit() or digits > MOST_DIGITS:
        return text
    number = float(text)
    as_it_is = (number == 0 and not text.startswith("-")) or SMALLEST <= abs(number) < math.inf
    return number if as_it_is else text


def _moment(column: Column, text: str) -> date | str:
    if column.type not in ("date", _TIMESTAMP):
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # infinity, before Christ, or of more than four digits
        return text
    # Excel tells milliseconds apart, and what is finer would be lost.
    return moment if moment.year > FIRST_YEAR and moment.microsecond % 1000 == 0 else text
