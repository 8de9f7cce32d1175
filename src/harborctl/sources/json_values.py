"""JSON values as the text that they are written as: taken apart by msgspec, never turned into numbers or objects.

What msgspec cannot follow, because it is nested deeper than its stack allows, is read by a reader of our own that has
no such limit: PostgreSQL takes some thousands of levels. Both read RFC 8259 to the letter, as PostgreSQL does, but that
half of a pair of surrogates is never taken, not even in a value that goes into a `json` column.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Raw

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Fields = dict[str, Raw]

NULL = Raw(b"null")

_FIELDS = msgspec.json.Decoder(Fields)
_ITEMS = msgspec.json.Decoder(list[Raw])
_STRING = msgspec.json.Decoder(str)

_TRUNCATED = "Input data was truncated"


class JsonValue(pa.ExtensionType):
    """The type of a source's column whose values are JSON: what they mean is decided by the column that they go into.

    It stands in schemas only. The values travel as `string`: their own JSON, or on demand the text of scalars."""

    def __init__(self) -> None:
        super().__init__(pa.string(), "harborctl.json_value")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, _storage: pa.DataType, _serialized: bytes) -> JsonValue:
        return cls()


class NotJson(ValueError):
    """A text that is not JSON, or not the kind of value that it should be; says what is wrong with it."""


def fields_of(text: bytes) -> Fields:
    """An object's fields. Of several with one name the last counts, as in PostgreSQL.

    Raises:
        NotJson: it is no object, or not JSON.
    """
    try:
        return _FIELDS.decode(text)
    except RecursionError:
        names, values = [], []
        for name, value in _deep(text, "{"):
            names.append(string_of(name))
            values.append(Raw(value))
        return dict(zip(names, values, strict=True))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJson(_reason(error, text)) from error


def items_of(text: bytes) -> Sequence[bytes]:
    """A list's items; raises as `fields_of` does."""
    try:
        return [bytes(item) for item in _ITEMS.decode(text)]
    except RecursionError:
        return [value for _, value in _deep(text, "[")]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJson(_reason(error, text)) from error


def string_of(text: bytes) -> str:
    """What a JSON string says."""
    try:
        return _STRING.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotJson(_reason(error, text)) from error


def lines_of(text: bytes) -> list[Fields] | None:
    """The objects of a text that has just one on every line; None if it may be another text."""
    try:
        rows = _FIELDS.decode_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    # The decoder passes over blanks of any kind between objects. In JSON no brace opens right behind one that closes:
    # where these two stand around each line end, there is one object between every two of them.
    ends = text.count(b"}\n{") + (text.count(b"}\r\n{") if b"\r" in text else 0)
    return rows if ends == len(rows) - 1 == text.count(b"\n") - text.endswith(b"\n") else None


def column_of(rows: Iterable[Fields], name: str) -> pa.Array:
    """The values of a field as `string`, JSON as it is written; NULL for null and where it is missing.

    Raises:
        pa.ArrowInvalid: not UTF-8.
    """
    values = pa.array([bytes(row.get(name, NULL)) for row in rows], pa.binary()).cast(pa.string())
    is_null = pc.equal(values, "null")
    return pc.if_else(is_null, None, values) if pc.any(is_null).as_py() else values


def scalar_texts(values: pa.Array) -> pa.Array:
    """JSON values → the text that PostgreSQL makes of them for a column that is neither JSON nor nested: of a string
    what it says, of any other value its JSON."""
    is_string = pc.starts_with(values, '"')
    if not pc.any(is_string).as_py():
        return values
    inside = pc.binary_slice(values.cast(pa.binary()), 1, -1).cast(pa.string())
    texts = inside if pc.all(is_string).as_py() else pc.if_else(is_string, inside, values)
    escaped = pc.and_(is_string, pc.match_substring(values, "\\"))
    if not pc.any(escaped).as_py():
        return texts
    decoded = [string_of(value.encode()) for value in values.filter(escaped).to_pylist()]
    return pc.replace_with_mask(texts, pc.fill_null(escaped, False), pa.array(decoded, pa.string()))


def _reason(error: Exception, text: bytes) -> str:
    told = str(error).removeprefix("JSON is malformed: ")
    if told != _TRUNCATED:
        return told
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except ValueError:
        return "it ends too early"
    except RecursionError:
        pass
    return "half of a pair of surrogates is no character"


# -- nested deeper than msgspec goes

_TOKEN = re.compile(
    rb"""[ \t\r\n]*+(?:
        (?P<string>"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")
      | (?P<other>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|true|false|null)
      | (?P<mark>[][{}:,])
      | \Z
    )""",
    re.VERBOSE,
)

# What may come: a Value, the first Item of a list, a Name, the First name of an object, a Colon, what goes on or ends a
# List or an Object, or the End; and what comes behind a token there: `A` for what follows a value.
_NEXT = {
    ("V", "string"): "A", ("V", "other"): "A", ("I", "string"): "A", ("I", "other"): "A",
    ("N", "string"): "C", ("F", "string"): "C", ("C", ":"): "V", ("L", ","): "V", ("O", ","): "N",
    ("V", "{"): "F", ("I", "{"): "F", ("V", "["): "I", ("I", "["): "I",
    ("I", "]"): "A", ("L", "]"): "A", ("F", "}"): "A", ("O", "}"): "A",
}  # fmt: skip


def _deep(text: bytes, kind: str) -> list[tuple[bytes, bytes]]:
    """Names, as JSON, and values of an object, `{`, or without names the items of a list, `[`."""
    found: list[tuple[bytes, bytes]] = []
    around = bytearray()  # what is open, as what goes on in it: L or O
    state, name, start, position = "V", b"", 0, 0
    while True:
        mark, begin, position = _token(text, position)
        if state == "E" and not mark:
            return found
        following = _NEXT.get((state, mark))
        if following is None or (not around and mark != kind):
            raise NotJson(f"invalid character (byte {begin})" if mark else "it ends too early")
        if len(around) == 1 and state in "VI":
            start = begin
        if mark in ("{", "["):
            around += b"O" if mark == "{" else b"L"
        elif mark in ("}", "]"):
            around.pop()
        if following == "A":
            following = chr(around[-1]) if around else "E"
            if len(around) == 1:
                found.append((name, text[start:position]))
        elif following == "C" and len(around) == 1:
            name = text[begin:position]
        state = following


def _token(text: bytes, position: int) -> tuple[str, int, int]:
    """The next token, a mark as itself, the end as nothing; where it begins, and where it ends."""
    token = _TOKEN.match(text, position)
    if token is None:
        raise NotJson(f"invalid character (byte {position})")
    group = token.lastgroup
    if group is None:
        return "", token.end(), token.end()
    if group == "string" and b"\\u" in token[group]:
        string_of(token[group])  # which looks for halves of pairs
    return (token[group].decode() if group == "mark" else group), token.start(group), token.end()
