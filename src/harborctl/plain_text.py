"""Text that anybody may read anywhere: nothing in it steers a terminal, forges a line, or is a secret.

Everything that harborctl says to people passes through `said`: what it says may hold a value of a file, a header, a
file's name, or a trigger's message. `as_json` is the same for documents. What reports and reject files hold is data of
the user's, and is not looked at here.
"""

from __future__ import annotations

import json
import re
from typing import Any

# Control characters, separators of lines, marks that turn the direction of writing, and halves of characters, which no
# stream can carry. https://www.unicode.org/reports/tr9/ and https://trojansource.codes tell what the marks can hide.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_IN_JSON = re.compile(_UNSAFE.pattern.replace("\x00-\x1f", ""))  # JSON has escaped those that stand in its texts

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

HIDDEN = "***"

# Of libpq's parameters, those whose value is a secret.
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
SECRETS = "(?:ssl|pg)?password|passwd|oauth_client_secret|scram_client_key|scram_server_key"

_IN_URL = re.compile(r"(?P<before>:/{1,2}[^\s:/@?#'\"]*:)(?P<secret>[^\s'\"]+)(?=@)")
# One of a database that has lost its end: pydantic cuts what it quotes in the middle. A port is no password.
_IN_CUT_URL = re.compile(
    r"(?P<before>\bpostgres(?:ql)?(?:\+\w+)?:/{1,2}[^\s:/@?#'\"]*:)(?!\d*(?:[/?,\s'\"]|$)|\*)(?P<secret>[^\s@'\"]+)"
)
# In a URL's query or a connection string. What a hint writes in capitals stands for a value, and --map has names.
_IN_SETTING = re.compile(
    rf"(?<!--map )(?<!--map ')(?P<before>\b(?:{SECRETS})\s*=\s*)"
    r"(?!VALUE\b)(?P<secret>'(?:[^'\\]|\\.)*(?:'|$)|[^\s&'\"]+)",
    re.IGNORECASE,
)
# `ALTER ROLE etl PASSWORD 'x'`, `OPTIONS (user 'x', password 'x')`; the log cuts long statements off.
_IN_SQL = re.compile(r"(?P<before>\bpassword\s+)(?P<secret>''[^']+''|'(?:[^']|'')*(?:'|$))", re.IGNORECASE)


def masked(text: str) -> str:
    """The text with its passwords hidden: those of URLs, connection strings and SQL."""
    for pattern in (_IN_URL, _IN_CUT_URL, _IN_SETTING, _IN_SQL):
        text = pattern.sub(rf"\g<before>{HIDDEN}", text)
    return text


def masked_all(value: Any) -> Any:
    """What JSON can hold, with the passwords of all its texts hidden."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, (list, tuple)):
        return [masked_all(item) for item in value]
    if isinstance(value, dict):
        return {masked(key): masked_all(item) for key, item in value.items()}
    return value


def visible(text: str) -> str:
    """The text in one line, with escapes for what would steer a terminal; other text is left as it is."""
    return _UNSAFE.sub(lambda match: _SHORT.get(match[0]) or _escape(match[0]), text)


def said(text: str) -> str:
    """A message, ready for a terminal or a log: one line without secrets."""
    return visible(masked(text))


def said_in_lines(text: str) -> str:
    """What has lines of its own, as a traceback or a hint with a piece of SQL. All but the first are indented, so that
    none of them looks like a message."""
    first, *others = map(said, text.rstrip("\n").split("\n"))
    return "\n".join([first, *(line if line.startswith(" ") else f"  {line}" for line in others)])


def as_json(document: object, **settings: Any) -> str:
    """One JSON document, for terminals and all encodings: what `visible` escapes is an escape of JSON's here. Passwords
    are hidden."""
    text = json.dumps(masked_all(document), ensure_ascii=False, **settings)
    return _IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00  # a byte of a file's name that is not UTF-8, as Python has it
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
