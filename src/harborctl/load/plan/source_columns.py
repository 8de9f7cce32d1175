"""Which columns of a source the options mean, and how a hint names one so that it works when it is followed.

A column goes by its name, or as `#3` by its position, where names are missing or stand twice.
"""

from __future__ import annotations

import csv
import io
import re
import shlex
import unicodedata
from typing import TYPE_CHECKING

from harborctl.errors import UsageError
from harborctl.nearest import did_you_mean
from harborctl.sqlstate import AMBIGUOUS_COLUMN, UNDEFINED_COLUMN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from harborctl.model import ColumnOptions
    from harborctl.sources.batch import Columns

_POSITION = re.compile(r"#([1-9]\d{0,5})")

# Names that a message lists; a table may have 1 600.
MOST_NAMES = 20


class SourceColumns:
    """The columns of a source, as options name them.

    Attributes:
        skipped: the positions that are left out.
        mapped: position → the columns of the target that it fills.

    Raises:
        UsageError: an option names a column that is not there, unless with a `?` behind it, or one of several.
    """

    def __init__(self, source: Columns, options: ColumnOptions) -> None:
        self._source = source.name
        self.names: list[str] = source.schema.names
        self.skipped = frozenset(
            position for name in options.skipped for position in self._positions("--skip-columns", name)
        )
        self.mapped: dict[int, list[str]] = {}
        for name, target in options.maps:
            positions = self._positions("--map", name)
            if not positions:  # it may be missing
                continue
            position, *others = positions
            if others:
                raise UsageError(
                    f"--map names column {name}, and {source.name} has several of that name",
                    code=AMBIGUOUS_COLUMN,
                    hint=f"Say which one by its position, as in --map {shlex.quote(f'#{position + 1}={target}')}.",
                )
            if position in self.skipped:
                raise UsageError(
                    f"--map and --skip-columns both name column {name}", hint="Take it out of one of them."
                )
            self.mapped.setdefault(position, []).append(target)

    def reference(self, position: int) -> str:
        """What an option calls this column: its name if that will do, else its place."""
        name = self.names[position] if position < len(self.names) else ""
        is_clear = self.names.count(name) == 1 and name.strip() == name and name.isprintable()
        return name if is_clear and name and "=" not in name and not _POSITION.fullmatch(name) else f"#{position + 1}"

    def skip_option(self, positions: Iterable[int]) -> str:
        """`--skip-columns …`, ready for a shell, which leaves these out."""
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow([self.reference(position) for position in positions])
        return f"--skip-columns {shlex.quote(line.getvalue())}"

    def map_option(self, position: int, target: str) -> str:
        """`--map …`, ready for a shell, which renames this one."""
        return f"--map {shlex.quote(f'{self.reference(position)}={target}')}"

    def way_out(self, position: int) -> str:
        """What to say so that this column goes nowhere."""
        skip = f"leave it out with {self.skip_option([position])}"
        maps = " ".join(self.map_option(position, target) for target in self.mapped.get(position, ()))
        return f"take {maps} away, and {skip}" if maps else skip

    def _positions(self, option: str, name: str) -> list[int]:
        found = [position for position, known in enumerate(self.names) if known == name]
        if found:
            return found
        place = _POSITION.fullmatch(name)
        if place and int(place[1]) <= len(self.names):
            return [int(place[1]) - 1]
        if name.endswith("?"):
            bare = name[:-1]
            return [position for position, known in enumerate(self.names) if known == bare]
        raise UsageError(
            f"{option} names column {name}, which {self._source} lacks",
            code=UNDEFINED_COLUMN,
            hint=did_you_mean(name, self.names) or f"Its columns are: {listed(self.names)}.",
        )


def snake(name: str) -> str:
    """The name in lower case, with `_` between its words, in letters and digits that need no quotes: `Grüße 2026`
    becomes `grusse_2026`."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", plain)
    found = re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")
    return f"_{found}" if not found or found[0].isdigit() else found


def go_by_position(options: ColumnOptions) -> bool:
    """Whether `options` look as if they named columns by position."""
    return any(_POSITION.fullmatch(name) for name in (*options.skipped, *(source for source, _ in options.maps)))


def listed(names: Iterable[str]) -> str:
    """Names for people, the first ones if they are many."""
    all_names = list(names)
    more = len(all_names) - MOST_NAMES
    return ", ".join(all_names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
