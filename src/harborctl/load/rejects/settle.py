"""How a load with bad rows ends: the reject file first, then the verdict, then the commit.

The file has its name before the commit: a file that cannot be written fails the load while nothing has happened yet. If
the load fails after that, the file goes away again, with two exceptions: when rejects were too many it is what the
user needs next; and when nobody can tell whether the commit went through, the rows may be in.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from harborctl.errors import StatementFailed, UsageError
from harborctl.load.plan.source_columns import go_by_position
from harborctl.load.rejects.file import RejectFile
from harborctl.sources.batch import REJECT_COLUMNS
from harborctl.sources.files import COMPRESSIONS

if TYPE_CHECKING:
    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.ledger_spool import KeptRejects
    from harborctl.load.rejects.spool import Rejects
    from harborctl.model import FileResult, LoadOptions
    from harborctl.sources.batch import Source


class Ending:
    """The rejects of one load, and what becomes of them. Close it by leaving its block."""

    def __init__(self, options: LoadOptions, sources: list[Source], rejects: Rejects | KeptRejects) -> None:
        self._options = options
        self._sources = sources
        self._file: RejectFile | None = None
        self._keeps_file = False
        self._rows_read = 0
        self.rejects: Rejects | KeptRejects = rejects

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.rejects.close()

    @property
    def rejected(self) -> int:
        """How many rows so far."""
        return len(self.rejects)

    def prepare(self, plans: list[Plan], *, complete: bool = False) -> None:
        """Settle where rejects would go; of a load that is `complete` they may be there already.

        Raises:
            UsageError: they cannot go there.
        """
        names = [_names(source, plan) for source, plan in zip(self._sources, plans, strict=True)]
        options = self._options
        if len(set(names)) > 1 and go_by_position(options.columns):
            raise UsageError(
                "sources with different columns, some of them named by position, do not go into one reject file",
                code="columns_differ",
                hint="Load them one by one, or name their columns.",
            )
        self._file = RejectFile(
            replace(options.rejects, force=True) if options.dry_run else options.rejects,
            options.dialect,
            self._sources,
            plans,
            names,
            _stem(self._sources, plans[0]),
            complete=complete,
        )

    def settle(self, rows_read: int, *, dry_run: bool) -> None:
        """Write the file, then judge.

        Raises:
            HarborctlError: it cannot be written, or there are too many rejects.
        """
        if not self.rejected or self._file is None:
            return
        self._rows_read = rows_read
        found = self.rejects.read(self._sources)
        if dry_run:
            for _ in self._file.tally(found):
                pass
        else:
            self._file.write(found, raw=self.rejects.has_raw)
        limit = self._options.rejects.limit
        if limit is not None and not limit.allows(self.rejected, rows_read):
            self._keeps_file = True
            raise StatementFailed(
                f"{self.rejected:,} of {rows_read:,} rows are bad; the limit is {limit}",
                code="too_many_rejects",
                hint="See the reject file, or raise the limit with --max-rejects."
                if not dry_run
                else "Raise the limit with --max-rejects.",
            )

    def failed(self) -> None:
        """Nothing was committed: the file must not say that rows are missing of what is not there."""
        if self._file and not self._keeps_file:
            self._file.remove()

    def summary(self) -> dict[str, Any]:
        """What the summary says of rejects."""
        if self._file is None or not self._file.reasons:
            return {}
        reasons = sorted(self._file.reasons.values(), key=lambda reason: -reason.count)
        return {
            "rows_read": self._rows_read,
            "rejected": self.rejected,
            "reject_file": str(self._file.path) if self._file.is_there else None,
            "reject_reasons": tuple(reasons),
        }

    def counted(self, files: tuple[FileResult, ...]) -> tuple[FileResult, ...]:
        """The files with the records that their sources could not count."""
        malformed = self.rejects.malformed
        return tuple(replace(file, rows=file.rows + malformed.get(n, 0)) for n, file in enumerate(files))


def _names(source: Source, plan: Plan) -> tuple[str, ...]:
    """The source's columns; where it does not name them, after those of the target that they go into."""
    names = [str(name) for name in source.schema.names]
    if not source.named:
        for planned in plan.columns:
            if planned.position is not None and names:  # an empty file has none
                names[planned.position] = planned.target.name
    return tuple(name for name in names if name not in REJECT_COLUMNS)


def _stem(sources: list[Source], plan: Plan) -> str:
    """What the reject file is called after: the only source, else the table."""
    names = {source.name for source in sources}
    if len(names) > 1:
        return plan.target.name
    path = Path(sources[0].name)
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path).stem
