"""Cuts one SQL statement into plain text and parameters.

A parameter is a colon with a name right behind it: `:name`. Not in strings, quoted identifiers, comments and dollar
quotes, and not as part of a cast: there a colon is what PostgreSQL takes it for. The rules are those of PostgreSQL's
own scanner (https://www.postgresql.org/docs/current/sql-syntax-lexical.html, src/backend/parser/scan.l), with
standard_conforming_strings on, as it is by default.

Nothing here knows reports or a database.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = r"[A-Za-z_][A-Za-z0-9_]*"

# PostgreSQL's spaces are these and no others, and every character beyond ASCII is a letter to it.
_SPACE = r" \t\n\r\f\v"
_LETTER = "A-Za-z_\u0080-\U0010ffff"
_ESCAPED = r"'(?:[^'\\]|''|\\.)*+'"
# SQL joins strings that only a line break separates, and what began as E'' stays so.
_LINE_BREAK = rf"(?:[ \t\f\v]|--[^\r\n]*)*+[\r\n](?:[{_SPACE}]|--[^\r\n]*[\r\n])*+"

# Quantifiers with a plus never give back: what is opened and not closed is told apart, and in linear time.
_TOKEN = re.compile(
    rf"""
      (?P<space>     [{_SPACE}]+ )
    | (?P<comment>   --[^\r\n]* )
    | (?P<block>     /\* )
    | (?P<string>    [eE]{_ESCAPED}(?:{_LINE_BREAK}{_ESCAPED})*
                   | (?:[bBnNxX]|[uU]&)?'(?:[^']|'')*+' )
    | (?P<quoted>    (?:[uU]&)?"(?:[^"]|"")*+" )
    | (?P<dollar>    \$(?P<tag>(?:[{_LETTER}][{_LETTER}0-9]*+)?)\$.*?\$(?P=tag)\$ )
    | (?P<unended>   (?:[eEbBnNxX]|[uU]&)?'  |  (?:[uU]&)?"  |  \$(?:[{_LETTER}][{_LETTER}0-9]*+)?\$ )
    | (?P<word>      [{_LETTER}][{_LETTER}0-9$]* )
    | (?P<number>    [0-9][{_LETTER}0-9]* )
    | (?P<cast>      :: )
    | (?P<parameter> :(?P<name>[{_LETTER}][{_LETTER}0-9$]*) )
    | (?P<semicolon> ; )
    | (?P<other>     . )
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_UNENDED = {"'": "string", '"': "quoted identifier", "$": "dollar quote"}


class NotSql(ValueError):
    """The text ends inside a string, an identifier or a comment. `offset` is where that begins."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Token:
    """A part of the text. `kind` is a group of the pattern above; `name` is set for parameters.

    `blank` tokens say nothing to the server: spaces and comments.
    """

    kind: str
    text: str
    offset: int
    name: str | None = None

    @property
    def blank(self) -> bool:
        """Whether the server skips it."""
        return self.kind in ("space", "comment", "block")


def tokens(sql: str) -> Iterator[Token]:
    """The tokens of `sql`; their texts joined are `sql`.

    Raises:
        NotSql: something opens and does not close.
    """
    offset = 0
    while offset < len(sql):
        match = _TOKEN.match(sql, offset)
        assert match is not None  # noqa: S101  # `other` takes any character
        kind, end = str(match.lastgroup), match.end()
        # lastgroup is the group that closed last: the outer one, whatever is nested in it.
        if kind == "unended":
            what = _UNENDED[match.group()[-1]]
            raise NotSql(f"a {what} begins here and does not end", offset)
        if kind == "block":
            end = _end_of_block(sql, offset)
        yield Token(kind, sql[offset:end], offset, match["name"])
        offset = end


def _end_of_block(sql: str, start: int) -> int:
    """Where the comment that starts at `start` ends. They nest, unlike in C."""
    depth = 0
    for edge in _BLOCK_EDGE.finditer(sql, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise NotSql("a comment begins here and does not end", start)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a statement: plain text, or one use of a parameter. `offset` is where it stands in the file."""

    text: str
    offset: int
    parameter: str | None = None


def pieces(parts: list[Token]) -> tuple[Piece, ...]:
    """The tokens of one statement, plain ones joined."""
    joined: list[Piece] = []
    plain: list[str] = []
    for token in parts:
        if token.name is None:
            plain.append(token.text)
            continue
        if plain:
            text = "".join(plain)
            joined.append(Piece(text, token.offset - len(text)))
            plain = []
        joined.append(Piece(token.text, token.offset, token.name))
    if plain:
        last = parts[-1]
        text = "".join(plain)
        joined.append(Piece(text, last.offset + len(last.text) - len(text)))
    return tuple(joined)


def line_and_column(text: str, offset: int) -> tuple[int, int]:
    """The 1-based line and column of `offset` in `text`."""
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1
