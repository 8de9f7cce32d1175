"""JSON values → array and row literals, as `json_populate_record` reads them (PostgreSQL manual, 9.16; jsonfuncs.c).

A string is the text of what it is to be, also of an array or a row. A field that an object lacks is NULL, and one that
the type lacks is passed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.codecs.typed_input import Unstorable
from harborctl.sources.json_values import fields_of, items_of, string_of
from harborctl.sqlstate import INVALID_TEXT_REPRESENTATION, PROGRAM_LIMIT_EXCEEDED

if TYPE_CHECKING:
    from harborctl.db.catalog import TargetColumn

# MAXDIM of utils/array.h.
MOST_DIMENSIONS = 6


class _Mismatch(ValueError):
    """JSON of another form than the type."""

    code = INVALID_TEXT_REPRESENTATION


class _TooDeep(_Mismatch):
    code = PROGRAM_LIMIT_EXCEEDED


def is_json(column: TargetColumn) -> bool:
    """Whether the column holds documents."""
    return column.kind == "b" and column.base in ("json", "jsonb")


def is_nested(column: TargetColumn) -> bool:
    """Whether the column is an array or a composite."""
    return column.element is not None or column.kind == "c"


def literals(values: pa.Array, column: TargetColumn) -> pa.Array:
    """JSON values, `string`, as literals of the column's type.

    Raises:
        Unstorable: a value is not made as the type is.
    """
    texts = []
    for row, value in enumerate(values.cast(pa.binary()).to_pylist()):
        try:
            texts.append(None if value is None else _text(value, column))
        except _Mismatch as error:
            raise Unstorable(row, value.decode(), error.code, f"{column.type}: {error}") from error
    return pa.array(texts, pa.string())


def _text(value: bytes, part: TargetColumn) -> str | None:
    """A value as text that the input function of a type reads; None is NULL."""
    if value == b"null":
        return None
    if value.startswith(b'"') and not is_json(part):
        return string_of(value)
    if part.element is not None:
        return _array(value, part.element)
    if part.kind == "c":
        return _row(value, part)
    return value.decode()


def _row(value: bytes, part: TargetColumn) -> str:
    if not value.startswith(b"{"):
        raise _Mismatch(f"a row is made of a JSON object, not of {_shown(value)}")
    fields = fields_of(value)
    found = [bytes(fields[own.name]) if own.name in fields else b"null" for own in part.attributes]
    texts = (_text(field, own) for field, own in zip(found, part.attributes, strict=True))
    return "(" + ",".join("" if text is None else _quoted(text) for text in texts) + ")"


def _array(value: bytes, element: TargetColumn) -> str:
    """How many dimensions it has is told by its first item that is no list."""
    lengths: list[int | None] = [None]
    first: bytes | None = value
    while first is not None and first.startswith(b"["):
        items = items_of(first)
        first = items[0] if items else None
        if first is not None and first.startswith(b"["):
            lengths.append(None)
        if len(lengths) > MOST_DIMENSIONS:
            raise _TooDeep(f"an array has {MOST_DIMENSIONS} dimensions at most")

    def braced(part: bytes, level: int) -> str:
        if not part.startswith(b"["):
            raise _Mismatch(f"an array is made of a JSON array, not of {_shown(part)}")
        items = items_of(part)
        if lengths[level] not in (None, len(items)):
            raise _Mismatch("the arrays in a JSON array are not of one length")
        lengths[level] = len(items)
        if level + 1 < len(lengths):
            texts = [braced(item, level + 1) for item in items]
        else:
            texts = ["NULL" if text is None else _quoted(text) for text in (_text(item, element) for item in items)]
        return "{" + ",".join(texts) + "}"

    literal = braced(value, 0)
    return "{}" if 0 in lengths else literal  # PostgreSQL has no empty array in an array


def _shown(value: bytes) -> str:
    text = value.decode()
    return text if len(text) <= 80 else text[:79] + "…"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
