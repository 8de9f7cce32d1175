"""How a load with bad rows ends: the reject file first, then the verdict, then the commit.

The file has its name before the commit: a file that cannot be written fails the load while nothing has happened yet. If
the load fails after that, the file goes away again, with two exceptions: when rejects were too many it is what the
user needs next; and when nobody can tell whether the commit went through, the rows may be in.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harborctl.errors import StatementFailed, UsageError
from harborctl.load.plan.source_columns import go_by_position
from harborctl.load.rejects.file import RejectFile
from harborctl.sources.batch import REJECT_COLUMNS
from harborctl.sources.files import COMPRESSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.ledger_spool import KeptRejects
    from harborctl.load.rejects.spool import Rejects
    from harborctl.model import LoadOptions
    from harborctl.sources.batch import Source


class Ending:
    """What becomes of the rejects of one load.

    Args:
        complete: the load had all of its rows before: they may be in the reject file already.

    Raises:
        UsageError: they cannot go where they should.
    """

    def __init__(
        self, options: LoadOptions, sources: Sequence[Source], plans: Sequence[Plan], *, complete: bool = False
    ) -> None:
        names = [_names(source, plan) for source, plan in zip(sources, plans, strict=True)]
        if len(set(names)) > 1 and go_by_position(options.columns):
            raise UsageError(
                "sources with different columns, some of them named by position, do not go into one reject file",
                code="columns_differ",
                hint="Load them one by one, or name their columns.",
            )
        self._options = options
        self._sources = sources
        self._keeps_file = False
        self._rows_read = self._rejected = 0
        self._file = RejectFile(
            replace(options.rejects, force=True) if options.dry_run else options.rejects,
            options.dialect,
            sources,
            plans,
            names,
            _stem(sources, plans[0]),
            complete=complete,
        )

    def settle(self, rejects: Rejects | KeptRejects, rows_read: int) -> None:
        """Write the file, but in a dry run, then judge.

        Raises:
            HarborctlError: it cannot be written, or there are too many rejects.
        """
        if not len(rejects):
            return
        self._rows_read, self._rejected = rows_read, len(rejects)
        found, dry_run = rejects.read(self._sources), self._options.dry_run
        if dry_run:
            for _ in self._file.tally(found):
                pass
        else:
            self._file.write(found, raw=rejects.has_raw)
        limit = self._options.rejects.limit
        if limit is not None and not limit.allows(len(rejects), rows_read):
            self._keeps_file = True
            raise StatementFailed(
                f"{len(rejects):,} of {rows_read:,} rows are bad; the limit is {limit}",
                code="too_many_rejects",
                hint="See the reject file, or raise the limit with --max-rejects."
                if not dry_run
                else "Raise the limit with --max-rejects.",
            )

    def failed(self) -> None:
        """Nothing was committed: the file must not say that rows are missing of what is not there."""
        if not self._keeps_file:
            self._file.remove()

    def summary(self) -> dict[str, Any]:
        """What the summary says of rejects."""
        if not self._file.reasons:
            return {}
        reasons = sorted(self._file.reasons.values(), key=lambda reason: -reason.count)
        return {
            "rows_read": self._rows_read,
            "rejected": self._rejected,
            "reject_file": str(self._file.path) if self._file.is_there else None,
            "reject_reasons": tuple(reasons),
        }


def _names(source: Source, plan: Plan) -> tuple[str, ...]:
    """The source's columns; where it does not name them, after those of the target that they go into."""
    names = [str(name) for name in source.schema.names]
    if not source.named:
        for planned in plan.columns:
            if planned.position is not None and names:  # an empty file has none
                names[planned.position] = planned.target.name
    return tuple(name for name in names if name not in REJECT_COLUMNS)


def _stem(sources: Sequence[Source], plan: Plan) -> str:
    """What the reject file is called after: the only source, else the table."""
    names = {source.name for source in sources}
    if len(names) > 1:
        return plan.target.name
    path = Path(sources[0].name)
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path).stem
