"""Writes a result in a text format, piece by piece: columns and batches in, text out.

Pure: nothing here knows where the text goes or where the rows come from, and nothing keeps more than a batch.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harborctl.reports.formats import Format
from harborctl.reports.result import Column, Kind, Result, unique_names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


@dataclass(frozen=True, slots=True)
class Layout:
    """What the rows do not say.

    Attributes:
        width: columns of the terminal; None for as many as the rows take.
        color: whether escape sequences are welcome.
        title, description: of the report, for formats that have a place for them.
    """

    width: int | None = None
    color: bool = False
    title: str = ""
    description: str = ""


def render(result: Result, output: Format, layout: Layout) -> Iterator[str]:
    """The result in a text format, in parts to be written one after the other."""
    if output is Format.TABLE:
        from harborctl.reports.table import table

        return table(result, layout.width, color=layout.color)
    writers: dict[Format, Callable[[Result], Iterator[str]]] = {
        Format.CSV: csv,
        Format.JSON: json_array,
        Format.JSONL: json_lines,
        Format.MARKDOWN: markdown,
    }
    return writers[output](result)


# Alone on its line it ends the data of a COPY FROM, also as a header.
_END_OF_DATA, _ALONE = "\\.", '"\\."'

# RFC 4180 in COPY's way: lines end in a line feed, NULL is nothing at all, and the empty text is `""`.
_QUOTED = re.compile(r'[",\r\n]|^$').search


def csv_field(text: str | None) -> str:
    """A field of CSV, as COPY writes it."""
    if text is None:
        return ""
    if _QUOTED(text):
        return '"' + text.replace('"', '""') + '"'
    return text


def csv(result: Result) -> Iterator[str]:
    """CSV, byte for byte what `COPY (…) TO STDOUT (FORMAT csv, HEADER)` writes."""
    yield csv_header(result.columns)
    yield from csv_lines(result)


def csv_header(columns: Sequence[Column]) -> str:
    """The line with the columns' names."""
    line = ",".join([csv_field(column.name) for column in columns])
    return f"{_ALONE}\n" if line == _END_OF_DATA and len(columns) == 1 else line + "\n"


def csv_lines(result: Result) -> Iterator[str]:
    """The rows as CSV."""
    mark = _END_OF_DATA if len(result.columns) == 1 else None
    for batch in result.batches:
        lines = [",".join([csv_field(text) for text in row]) for row in batch]
        yield "".join([f"{_ALONE}\n" if line == mark else line + "\n" for line in lines])


def json_array(result: Result) -> Iterator[str]:
    """An array of objects, one to a line."""
    before = "[\n"
    for line in _json_objects(result):
        yield before + "  " + line
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"


def json_lines(result: Result) -> Iterator[str]:
    """One object to a line: https://jsonlines.org"""
    for line in _json_objects(result):
        yield line + "\n"


def _json_objects(result: Result) -> Iterator[str]:
    keys = [_json_string(name) + ": " for name in unique_names(result.columns)]
    writers = [_json_writer(column) for column in result.columns]
    for batch in result.batches:
        for row in batch:
            fields = [
                key + ("null" if text is None else write(text))
                for key, write, text in zip(keys, writers, row, strict=True)
            ]
            yield "{" + ", ".join(fields) + "}"


def _json_string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _json_number(text: str) -> str:
    # The digits as they are: a numeric keeps all of them. NaN and Infinity are no JSON numbers.
    return text if text[-1].isdigit() else _json_string(text)


def _json_boolean(text: str) -> str:
    return "true" if text == "t" else "false"


def _json_document(text: str) -> str:
    # The type json keeps its line breaks; they can only stand between tokens.
    return text.replace("\r", " ").replace("\n", " ")


_OFFSET = re.compile(r"[+-]\d\d$")


def _json_timestamp(text: str) -> str:
    """ISO 8601, as PostgreSQL's own to_json has it; `infinity` and years before Christ stay words."""
    if len(text) < 19 or text.endswith("BC"):
        return _json_string(text)
    text = text.replace(" ", "T", 1)
    return _json_string(text + ":00" if _OFFSET.search(text, 19) else text)


_JSON: dict[Kind, Callable[[str], str]] = {
    Kind.NUMBER: _json_number,
    Kind.BOOLEAN: _json_boolean,
    Kind.JSON: _json_document,
    Kind.TIMESTAMP: _json_timestamp,
    Kind.TEXT: _json_string,
}


def _json_writer(column: Column) -> Callable[[str], str]:
    element = _JSON[column.kind]
    if column.delimiter is None:
        return element
    delimiter = column.delimiter
    parts = re.compile(_PART.replace("DELIMITER", re.escape(delimiter)), re.DOTALL)
    return lambda text: _json_list(parts, text, delimiter, element)


# One part of a list's text: https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
_BOUNDS = re.compile(r"(?:\[[+-]?\d+:[+-]?\d+\])+=")
_PART = r'[{}]|DELIMITER|"(?:[^"\\]|\\.)*"|[^{}DELIMITER"]+'
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def list_elements(text: str, delimiter: str) -> list[str | None]:
    """The elements of a one-dimensional list.

    Raises:
        ValueError: it has more dimensions.
    """
    parts = re.compile(_PART.replace("DELIMITER", re.escape(delimiter)), re.DOTALL)
    bounds = _BOUNDS.match(text)
    found = parts.findall(text, bounds.end() if bounds else 0)[1:-1]
    if "{" in found:
        raise ValueError(text)
    return [
        _ESCAPE.sub(r"\1", part[1:-1]) if part.startswith('"') else None if part == "NULL" else part
        for part in found
        if part != delimiter
    ]


def _json_list(parts: re.Pattern[str], text: str, delimiter: str, element: Callable[[str], str]) -> str:
    bounds = _BOUNDS.match(text)
    written = []
    for part in parts.findall(text, bounds.end() if bounds else 0):
        if part == "{":
            written.append("[")
        elif part == "}":
            written.append("]")
        elif part == delimiter:
            written.append(", ")
        elif part.startswith('"'):
            written.append(element(_ESCAPE.sub(r"\1", part[1:-1])))
        else:
            written.append("null" if part == "NULL" else element(part))
    return "".join(written)


# What Markdown reads as markup within a cell. Underscores inside a word are none.
_MARKUP = re.compile(r"[\\`*\[\]<|~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")


def _markdown_cell(text: str | None) -> str:
    if text is None:
        return "NULL"
    escaped = _MARKUP.sub(r"\\\g<0>", text.strip())
    return re.sub(r"\r\n|\r|\n", "<br>", escaped)


def markdown(result: Result) -> Iterator[str]:
    """A table as GitHub reads it: https://github.github.com/gfm/#tables-extension-"""
    names = [_markdown_cell(column.name) for column in result.columns]
    rules = ["---:" if column.is_number else "---" for column in result.columns]
    yield f"| {' | '.join(names)} |\n| {' | '.join(rules)} |\n"
    for batch in result.batches:
        yield "".join([f"| {' | '.join([_markdown_cell(text) for text in row])} |\n" for row in batch])
