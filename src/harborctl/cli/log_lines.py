"""What stderr says, as JSON for collectors of logs: one object a line, with `--log-format json`."""

from __future__ import annotations

import itertools
import logging
from datetime import UTC, datetime
from enum import StrEnum

from harborctl.plain_text import as_json, masked, said


class LogFormat(StrEnum):
    """How lines on stderr are written."""

    TEXT = "text"
    JSON = "json"


def json_line(level: str, message: str, **fields: object) -> str:
    """One line, without its end."""
    told = {name: value for name, value in fields.items() if value is not None}
    head = {"time": datetime.now(UTC).isoformat(), "level": level, "message": masked(message)}
    return as_json(head | told, default=str)


class TextFormatter(logging.Formatter):
    """Turns the records of the library's loggers into lines for people, one each."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return said(record.getMessage())


class JsonFormatter(logging.Formatter):
    """Turns the records of the library's loggers into such lines."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        return json_line(record.levelname.lower(), record.getMessage(), logger=record.name)


def wants_json(arguments: list[str]) -> bool:
    """Whether these arguments, which may not even be valid, ask for JSON."""
    pairs = itertools.pairwise(arguments)
    return "--log-format=json" in arguments or ("--log-format", "json") in pairs
