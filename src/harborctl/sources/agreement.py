"""Whether PostgreSQL reads a text as Arrow does: what to look for in the text, and in what Arrow made of it."""

from __future__ import annotations

from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

# 0001-01-01 in days from 1970.
YEAR_ONE_DAYS = -719162

# So often one block is looked through for a letter.
MOST_LETTERS = 10_000


def holds_any(array: pa.Array, characters: tuple[bytes, ...]) -> bool:
    """Whether one of these characters is in any value of an array that Arrow has just made."""
    if array.type != pa.string() or (data := array.buffers()[2]) is None:
        return False
    text = data.to_pybytes()
    return any(character in text for character in characters)


def may_hold_hexadecimals(text: bytes) -> bool:
    """Whether 0x or 0X may be in the text. To look for one letter takes a tenth of the time of looking for two."""
    for letter in (b"x", b"X"):
        place = -1
        for _ in range(MOST_LETTERS):
            place = text.find(letter, place + 1)
            if place < 0:
                break
            if text[place - 1 : place] == b"0":
                return True
        else:
            return True
    return False


def has_year_zero(days: pa.Array) -> bool:
    """Whether a `date32` array has days before the year 1: the year 0 is 1 BC to Arrow, and an error to PostgreSQL."""
    first = pc.min(days.view(pa.int32())).as_py()
    return first is not None and first < YEAR_ONE_DAYS


def may_have_empty_rows(batch: pa.RecordBatch) -> bool:
    """Whether some row may have nothing but NULLs, which is what Arrow makes of an empty line, too."""
    if any(column.null_count == 0 for column in batch.columns):
        return False
    is_empty = reduce(pc.and_, (column.is_null() for column in batch.columns))
    return bool(pc.any(is_empty).as_py())


def may_have_empty_lines(text: bytes) -> bool:
    """Whether two line ends, other than a CRLF, follow each other, maybe inside quotes, or a line end comes first."""
    if text[:1] in (b"\n", b"\r") or b"\n\n" in text:
        return True
    return b"\r" in text and (b"\n\r" in text or b"\r\r" in text)


def is_utf8(text: bytes) -> bool:
    """Whether it is, found out without a copy."""
    if text.isascii():
        return True
    offsets = pa.array([0, len(text)], pa.int32()).buffers()[1]
    try:
        pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(text)]).validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
