"""Which column of the table a name means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harborctl.errors import TargetError
from harborctl.load.plan.source_columns import snake
from harborctl.model import Match, Names
from harborctl.sqlstate import AMBIGUOUS_COLUMN

if TYPE_CHECKING:
    from collections.abc import Callable

    from harborctl.db.catalog import Target, TargetColumn
    from harborctl.model import LoadOptions


def _exact(name: str) -> str:
    return name


def _folded(name: str) -> str:
    return name.strip().lower()


# Nearest first: names are one if these make the same of them.
_SPELLINGS: dict[Match, tuple[Callable[[str], str], ...]] = {
    Match.EXACT: (_exact,),
    Match.FOLD: (_exact, _folded),
    Match.SNAKE: (_exact, _folded, snake),
}


class TargetNames:
    """The columns of the target by names that `--match` takes for theirs."""

    def __init__(self, target: Target, options: LoadOptions) -> None:
        self.target = target
        default = Match.SNAKE if options.create.names is Names.SNAKE else Match.FOLD
        self._spellings = _SPELLINGS[options.columns.match or default]

    def find(self, name: str) -> TargetColumn | None:
        """The column of the nearest name; None if there is none.

        Raises:
            TargetError: there are several.
        """
        for spelled in self._spellings:
            found = [column for column in self.target.columns if spelled(column.name) == spelled(name)]
            if len(found) > 1:
                raise TargetError(
                    f"{name} may be {' or '.join(column.name for column in found)} of {self.target.label}",
                    code=AMBIGUOUS_COLUMN,
                    column=name,
                    hint=f"Say which with --map '{name}=COLUMN'.",
                )
            if found:
                return found[0]
        return None
