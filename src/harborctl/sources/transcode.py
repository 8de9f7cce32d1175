"""Bytes of any encoding → UTF-8. What is not of the encoding is passed on marked, so that the reader of the text, who
knows its records and columns, can say where it stands."""

from __future__ import annotations

import codecs
import contextlib
import re
from typing import TYPE_CHECKING

from harborctl.errors import SourceError
from harborctl.sqlstate import CHARACTER_NOT_IN_REPERTOIRE

if TYPE_CHECKING:
    from harborctl.sources.files import ByteStream

# A byte that could not be decoded becomes one of 256 lone surrogates, whose bytes are not UTF-8. No text has them.
_FIRST_MARK = 0xDC00
_MARKS = re.compile("[\udc00-\udcff]+")
_OTHER_SURROGATES = re.compile("[\ud800-\udbff\udd00-\udfff]")


class Utf8Reader:
    """A stream of another encoding, read as UTF-8."""

    def __init__(self, raw: ByteStream, encoding: str, name: str) -> None:
        self._raw = raw
        self._name = name
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)(_HANDLER)

    def read(self, size: int, /) -> bytes:
        """About `size` bytes; none at the end only.

        Raises:
            SourceError: it does not begin as texts of this encoding do.
        """
        text = ""
        while not text:
            data = self._raw.read(size)
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeError as error:
                raise SourceError(
                    f"{self._name} is not {self._encoding.upper()}: it does not begin with a byte order mark",
                    code=CHARACTER_NOT_IN_REPERTOIRE,
                    hint=f"Try --encoding {self._encoding}-le or --encoding {self._encoding}-be, or utf-8.",
                ) from error
            if not data:
                break
        return text.encode("utf-8", "surrogatepass")


def undecodable(text: bytes, encoding: str) -> bytes | None:
    """The first bytes of `text` that were not of the encoding, as they stood in the file; None if all of them were."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        marks = None if codecs.lookup(encoding).name == "utf-8" else _MARKS.search(_with_marks(text))
        return _unmarked(marks) if marks else text[error.start : error.end]
    return None


def shown(text: bytes) -> str:
    """Text for people, the bytes that could not be decoded as `\\xe9`."""
    return _MARKS.sub(lambda marks: "\\x" + _unmarked(marks).hex(" ").replace(" ", "\\x"), _with_marks(text))


def encoded(text: bytes, encoding: str) -> bytes:
    """Text of a source in the encoding that it had there; what could not be decoded as the bytes that it was."""
    if codecs.lookup(encoding).name == "utf-8":
        return text
    # Of encodings that begin with a mark of the byte order only the plain form is wanted.
    bare = {"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": "utf-8"}.get(
        codecs.lookup(encoding).name, encoding
    )
    return text.decode("utf-8", "surrogatepass").encode(bare, _UNHANDLER)


def _with_marks(text: bytes) -> str:
    with contextlib.suppress(UnicodeDecodeError):
        readable = text.decode("utf-8", "surrogatepass")
        if not _OTHER_SURROGATES.search(readable):
            return readable
    return text.decode(errors="backslashreplace")


def _unmarked(marks: re.Match[str]) -> bytes:
    return bytes(ord(mark) - _FIRST_MARK for mark in marks.group())


def _mark(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(chr(_FIRST_MARK + byte) for byte in error.object[error.start : error.end]), error.end


def _unmark(error: UnicodeError) -> tuple[bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return bytes(ord(mark) & 0xFF for mark in error.object[error.start : error.end]), error.end


_HANDLER = "harborctl.mark"
codecs.register_error(_HANDLER, _mark)
_UNHANDLER = "harborctl.unmark"
codecs.register_error(_UNHANDLER, _unmark)
