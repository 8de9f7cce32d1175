"""On which line of a TOML file a key stands: the parser does not tell."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    Step = str | int

_HEADER = re.compile(r"\s*(\[{1,2})(?P<keys>[^\[\]]+)\]{1,2}\s*(?:#.*)?")
_KEY = re.compile(r"\s*(?P<keys>[\w\-.\"' ]+?)\s*=")


def line_of(file: Path, path: Sequence[Step]) -> int | None:
    """The 1-based line of the key, or of the table around it; `path` is as in `jobs`, `nightly`, `loads`, 0, `mode`.
    None where nothing of it is found, or the file cannot be read any more."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    wanted = tuple(map(_normal, path))
    best, line = 1, None  # `jobs` alone is no place
    for number, found in _keys(text):
        length = min(len(found), len(wanted))  # what is within the wanted one shows where it begins
        if length > best and wanted[:length] == found[:length]:
            best, line = length, number
    return line


def _keys(text: str) -> Iterator[tuple[int, tuple[Step, ...]]]:
    """Each header and key, with its line. What stands in texts of several lines may be taken for one."""
    table: tuple[Step, ...] = ()
    counts: dict[tuple[Step, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            table = ()
            for key in _split(header["keys"]):
                table += (key,)
                if table in counts:
                    table += (counts[table],)
            if header[1] == "[[":
                array = table[:-1] if isinstance(table[-1], int) else table
                counts[array] = counts.get(array, -1) + 1
                table = (*array, counts[array])
            yield number, table
        elif key_line := _KEY.match(line):
            yield number, (*table, *_split(key_line["keys"]))


def _split(keys: str) -> list[Step]:
    """`a."b.c"` is `a` and `b.c`."""
    try:
        inside: Any = tomllib.loads(f"{keys} = 0")
    except tomllib.TOMLDecodeError:
        return [keys]
    found: list[Step] = []
    while isinstance(inside, dict):
        key, inside = next(iter(inside.items()))
        found.append(_normal(key))
    return found


def _normal(step: Step) -> Step:
    """Hyphens are underscores, and `sources` is `source`."""
    if isinstance(step, int):
        return step
    return "source" if step == "sources" else step.replace("-", "_")
