"""Text as a database can hold it, whatever its encoding is.

Our own rows hold what comes from elsewhere: paths, options, messages, values. None of that is a reason to lose the row.
https://www.postgresql.org/docs/current/multibyte.html
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection


def storable(connection: Connection, value: Any) -> Any:
    r"""The same, at every depth, with escapes for characters that the database lacks: `\u6f22`; `\0` none has.

    SQL_ASCII is taken for ASCII: jsonb refuses everything else there.
    """
    driver: Any = connection.connection.driver_connection
    return _with_escapes(value, _codec(driver.info.parameter_status("server_encoding") or ""))


def _codec(encoding: str) -> str:
    """Python's name of PostgreSQL's encoding, `ascii` if Python does not know it."""
    try:
        return codecs.lookup(encoding.replace("WIN", "cp").replace("KOI8", "koi8_")).name
    except LookupError:
        return "ascii"


def _with_escapes(value: Any, codec: str) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\\0").encode(codec, "backslashreplace").decode(codec)
    if isinstance(value, dict):
        return {_with_escapes(name, codec): _with_escapes(item, codec) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_escapes(item, codec) for item in value]
    return value
