"""The formats that a result can be written in. Names only, so that `--help` costs nothing."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from harborctl.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


class Format(StrEnum):
    """A format of results."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    MARKDOWN = "markdown"
    HTML = "html"
    PARQUET = "parquet"
    XLSX = "xlsx"
    SVG = "svg"
    PNG = "png"


class Compression(StrEnum):
    """How text files are compressed."""

    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def suffix(self) -> str:
        """By which files of it are known."""
        return {"gzip": ".gz", "zstd": ".zst"}[self]


# What is no text: nothing for a terminal.
BINARY = frozenset({Format.PARQUET, Format.XLSX, Format.PNG})
# Pictures of a chart, and nothing else.
PICTURES = frozenset({Format.SVG, Format.PNG})
# What can be read from the lines that COPY writes, without looking at each value.
BY_LINES = frozenset({Format.CSV, Format.PARQUET})


_SUFFIXES = {
    ".txt": Format.TABLE,
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".md": Format.MARKDOWN,
    ".markdown": Format.MARKDOWN,
    ".html": Format.HTML,
    ".htm": Format.HTML,
    ".parquet": Format.PARQUET,
    ".xlsx": Format.XLSX,
    ".svg": Format.SVG,
    ".png": Format.PNG,
}


def format_of(path: Path) -> Format:
    """The format that the suffix of `path` names.

    Raises:
        UsageError: it names none.
    """
    try:
        return _SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"the suffix of {path} names no format",
            code="unknown_format",
            hint=f"Take one of {' '.join(_SUFFIXES)}, or say --format.",
        ) from None
