"""Orders in a file: CSV or JSON Lines with the columns `order`, `sku` and `qty`, a line for each variant of an order.

The whole file is read before anything is reserved: an order's lines need not stand together, and a file that is broken
further down reserves nothing. A value that is none is a fault of its order alone.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.errors import SourceError, StockRefused
from harborctl.model import LoadOptions, SourceFormat
from harborctl.sources.batch import WithoutHeader
from harborctl.sources.open import open_sources
from harborctl.stock.orders import Line, Order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harborctl.errors import Location
    from harborctl.sources.batch import Source

COLUMNS = ("order", "sku", "qty")
FORMATS = (SourceFormat.CSV, SourceFormat.TSV, SourceFormat.JSONL)

_INTEGER = re.compile(r"\s*[+-]?\d{1,18}\s*", re.ASCII)

Values = tuple[str | None, ...]


def read_orders(path: str, source_format: SourceFormat | None = None) -> list[Order]:
    """The orders of a file, or of standard input for `-`, as they first turn up.

    Raises:
        SourceError: the file is missing, of another format, or lacks a column.
        BadRow: a record is not of the format.
    """
    [source, *others] = open_sources(LoadOptions(sources=(path,), format=source_format))
    try:
        if others:
            raise SourceError(f"{path} is several files", hint="Name one, or write them one behind the other to -.")
        if source.format not in FORMATS:
            raise SourceError(
                f"orders are read from CSV or JSON Lines, and {source.name} is {source.format}",
                hint="Say --format if its name does not tell.",
            )
        lines: dict[str, list[Line]] = {}
        errors: dict[str, StockRefused] = {}
        for values, place in _records(source):
            ref = values[0] or ""
            taken = lines.setdefault(ref, [])
            try:
                taken.append(_line(values, place))
            except StockRefused as error:
                errors.setdefault(ref, error)
        return [Order(ref, tuple(taken), errors.get(ref)) for ref, taken in lines.items()]
    finally:
        for each in (source, *others):
            each.close()


def _records(source: Source) -> Iterator[tuple[Values, Location]]:
    if isinstance(source, WithoutHeader):
        source.settle(source.look_for(COLUMNS))
        if not source.schema.names:  # no rows
            return
    names = source.schema.names
    for column in COLUMNS:
        if names.count(column) != 1:
            raise SourceError(
                f"{source.name} has {'no' if column not in names else 'more than one'} column {column}",
                code="no_such_column",
                hint=f"Orders have the columns {', '.join(COLUMNS)}.",
                column=column,
            )
    positions = [names.index(column) for column in COLUMNS]
    for batch in source.batches(positions, [pa.string()] * len(positions)):
        columns = (column.cast(pa.string()).to_pylist() for column in batch.records.columns)
        for row, values in enumerate(zip(*columns, strict=True)):
            yield values, batch.location(row)


def _line(values: Values, place: Location) -> Line:
    for column, value in zip(COLUMNS, values, strict=True):
        if not value:
            raise StockRefused(f"{column} is missing", code="missing_value", location=place, column=column)
    _, sku, quantity = values
    if not _INTEGER.fullmatch(quantity or ""):
        raise StockRefused(
            f"{quantity} is no whole number",
            code="bad_quantity",
            location=place,
            column="qty",
            value=quantity,
        )
    return Line(sku or "", int(quantity or ""), place)
