"""JSON documents, read as JSON Lines: each object of a list becomes a line, its values with the text that they have.

The list is the document, or stands where `--records` says; objects that follow each other are a list, too. A document
is read as a stream: what is kept of it is a block, or a record. A line is the number of the object.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any

from harborctl.errors import BadRow, Location, SourceError
from harborctl.sources.json_text import json_text
from harborctl.sources.json_values import NotJson, fields_of
from harborctl.sqlstate import INVALID_JSON_TEXT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harborctl.sources.files import ByteStream

READ_BYTES = 1024 * 1024
_SPACE = re.compile(r"[ \t\r\n]*")
_LINE_ENDS = re.compile(r"[\r\n]+")
# Numbers are not made: nobody asks for them. `strict` refuses line ends in texts, so that all others are white space.
_DECODER = json.JSONDecoder(parse_float=str, parse_int=str, strict=True)
# An error so near to the end of what was read may be none once more is read.
_NEAR = 32
_ESCAPED = "surrogateescape"


class JsonDocument:
    """The records of a document as a stream of JSON Lines."""

    def __init__(self, text: ByteStream, name: str, path: Sequence[str], *, flatten: bool) -> None:
        self._text = _Text(text, name)
        self._name = name
        self._path = path
        self._flatten = flatten
        self._lines = self._records()

    def read(self, size: int, /) -> bytes:
        """About `size` bytes of whole lines; none at the end only.

        Raises:
            SourceError: it is not JSON, or holds no list of objects there.
        """
        found, length = list[bytes](), 0
        for line in self._lines:
            found.append(line)
            length += len(line)
            if length >= size:
                break
        return b"".join(found)

    def _records(self) -> Iterator[bytes]:
        text = self._text
        if text.next_sign() == "":
            raise SourceError(f"{self._name} is empty", code="empty_file")
        for depth, name in enumerate(self._path):
            self._descend(name, ".".join(self._path[: depth + 1]))
        sign = text.next_sign()
        if sign == "[":
            yield from self._listed()
        elif sign == "{" and not self._path:
            yield from self._following()
        else:
            where = f" at {'.'.join(self._path)}" if self._path else ""
            raise SourceError(f"{self._name} holds no list of objects{where}", code="no_records")
        if self._path:
            text.drain()
        elif text.next_sign():
            raise text.error("the list is followed by something else")

    def _descend(self, name: str, path: str) -> None:
        text = self._text
        if text.next_sign() != "{":
            raise SourceError(f"{self._name} holds no field {path}", code="no_records")
        found: list[str] = []
        text.take()
        while text.next_sign() == '"':
            found.append(text.value()[0])
            if text.next_sign() != ":":
                raise text.error("a field has no value")
            text.take()
            if found[-1] == name:
                return
            text.value()
            if text.next_sign() != ",":
                break
            text.take()
        hint = f"There {'are' if found else 'is'} {', '.join(found) or 'nothing'}."
        raise SourceError(f"{self._name} holds no field {path}", code="no_records", hint=hint)

    def _listed(self) -> Iterator[bytes]:
        text = self._text
        text.take()
        if text.next_sign() == "]":
            text.take()
            return
        while True:
            yield self._line(text.value()[1])
            sign = text.next_sign()
            if sign not in ("]", ","):
                raise text.error("the list does not end" if not sign else "a comma is missing in the list")
            text.take()
            if sign == "]":
                return

    def _following(self) -> Iterator[bytes]:
        text = self._text
        first, record = text.value()
        if not text.next_sign() and (paths := _lists_in(first)):
            raise SourceError(
                f"{self._name} holds one object, and the list of objects is inside of it",
                code="no_records",
                hint=f"Say --records {paths[0]}." if len(paths) == 1 else f"Say --records with {' or '.join(paths)}.",
            )
        yield self._line(record)
        while text.next_sign() == "{":
            yield self._line(text.value()[1])

    def _line(self, record: str) -> bytes:
        line = _LINE_ENDS.sub(" ", record).encode("utf-8", _ESCAPED)
        return (self._flat(line) if self._flatten else line) + b"\n"

    def _flat(self, record: bytes) -> bytes:
        try:
            fields = dict[str, bytes]()
            for name, value in _leaves(record, ""):
                if name in fields:
                    raise SourceError(
                        f"two fields of an object of {self._name} would be column {name}",
                        code="columns_differ",
                        hint="Load it without --flatten: nested objects go into columns of json or jsonb.",
                    )
                fields[name] = value
        except (NotJson, UnicodeEncodeError):
            return record  # whoever reads the line says what is wrong with it
        return b"{" + b",".join(f"{json_text(name)}:".encode() + value for name, value in fields.items()) + b"}"


def _leaves(record: bytes, before: str) -> Iterator[tuple[str, bytes]]:
    for name, raw in fields_of(record).items():
        value = bytes(raw)
        if value.startswith(b"{") and value.strip(b"{} \t"):
            yield from _leaves(value, f"{before}{name}_")
        else:
            yield before + name, value


def _lists_in(found: Any, depth: int = 3) -> list[str]:
    """Where lists of objects are in this one."""
    paths = []
    for name, value in found.items() if isinstance(found, dict) and depth else ():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            paths.append(name)
        paths += [f"{name}.{path}" for path in _lists_in(value, depth - 1)]
    return paths


class _Text:
    """The text of a document, as far as it has been read, and a place in it."""

    def __init__(self, stream: ByteStream, name: str) -> None:
        self._stream = stream
        self._name = name
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(_ESCAPED)
        self._buffer = ""
        self._place = 0
        self._line = 1
        self._ended = False

    def next_sign(self) -> str:
        """The next character that is no white space, without taking it; none at the end."""
        while True:
            found = _SPACE.match(self._buffer, self._place)
            self._place = found.end() if found else self._place
            if self._place < len(self._buffer):
                return self._buffer[self._place]
            if not self._more(READ_BYTES):
                return ""

    def take(self) -> None:
        """Go behind the next character."""
        self._place += 1

    def value(self) -> tuple[Any, str]:
        """The value that stands here, and its text; go behind it."""
        size = READ_BYTES
        self.next_sign()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._place)
            except json.JSONDecodeError as error:
                place, message = error.pos, f"it is not JSON: {error.msg}"
                if error.msg.startswith("Unterminated string"):
                    place = len(self._buffer)
            except RecursionError:
                raise self.error("its values are nested too deeply") from None
            else:
                if end < len(self._buffer) or self._ended:
                    text = self._buffer[self._place : end]
                    self._place = end
                    return value, text
                place, message = end, ""
            if place < len(self._buffer) - _NEAR or not self._more(size):
                if not message:
                    continue
                self._place = min(place, len(self._buffer))
                raise self.error(message)
            size = min(size * 2, 256 * READ_BYTES)

    def drain(self) -> None:
        """Read to the end: the digest is that of the whole."""
        while self._more(READ_BYTES):
            self._place = len(self._buffer)

    def error(self, message: str) -> BadRow:
        """What is wrong at this place."""
        line = self._line + self._buffer.count("\n", 0, self._place)
        near = self._buffer[self._place : self._place + 40]
        return BadRow(
            message,
            code=INVALID_JSON_TEXT,
            location=Location(self._name, line),
            value=near.encode("utf-8", "replace").decode() or None,
        )

    def _more(self, size: int) -> bool:
        if self._ended:
            return False
        data = self._stream.read(size)
        self._ended = not data
        self._line += self._buffer.count("\n", 0, self._place)
        self._buffer = self._buffer[self._place :] + self._decoder.decode(data, final=not data)
        self._place = 0
        return not self._ended
