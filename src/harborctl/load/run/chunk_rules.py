"""Which loads commit in parts, by `--commit-every` and `--jobs`, and which cannot; told before a file is opened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harborctl.errors import UsageError
from harborctl.model import ExtraColumns, Mode, OnDuplicate
from harborctl.sources.files import STDIN, is_read_once, printable

if TYPE_CHECKING:
    from harborctl.model import LoadOptions


def in_parts(options: LoadOptions) -> bool:
    """Whether there are several transactions. `--jobs` is for appends: of rows with one key the last of the load must
    win, and two merges at once would wait for each other."""
    return options.run.commit_every is not None or (options.run.jobs > 1 and options.mode is Mode.APPEND)


def check_parts(options: LoadOptions) -> None:
    """Refuse what a load in parts cannot do.

    Raises:
        UsageError: as it says.
    """
    option = _option(options)
    if options.mode in {Mode.SYNC, Mode.REPLACE}:
        raise UsageError(
            f"{option} commits in parts, but mode {options.mode} is all or nothing",
            code="not_divisible",
            hint="Leave it out, or use --mode upsert.",
        )
    if options.columns.extra is ExtraColumns.ADD:
        raise UsageError(
            f"--extra-columns add changes the table in the transaction of its rows, and {option} has several",
            code="not_divisible",
            hint="Leave one of them out.",
        )
    if options.rejects.expected is not None and options.run.commit_every:
        raise UsageError(
            "--commit-every commits before all rows are read, which --expect-rows is to count",
            code="not_divisible",
            hint="Leave one of them out. --jobs without --commit-every counts before it commits.",
        )
    # Of rows with one key in different chunks the later one meets the earlier as a row of the table.
    like_chunks = {OnDuplicate.LAST} | ({OnDuplicate.FIRST} if options.mode is Mode.IGNORE else set())
    if options.run.commit_every and options.merge.on_duplicate not in like_chunks:
        raise UsageError(
            f"--on-duplicate {options.merge.on_duplicate} is about the whole load, and --commit-every sees one chunk",
            code="not_divisible",
            hint="Leave one of them out.",
        )
    if not options.ledger:
        raise UsageError(f"{option} needs the ledger, which knows the parts that are in", hint="Leave out --no-ledger.")
    for source in options.sources:
        if is_read_once(source):
            refuse_read_once(options, "standard input" if source == STDIN else printable(source))


def refuse_read_once(options: LoadOptions, name: str) -> None:
    """A load in parts reads its files several times.

    Raises:
        UsageError: always.
    """
    raise UsageError(
        f"{_option(options)} reads its source in pieces, and {name} can be read only once, from its start",
        code="not_divisible",
        hint="Save it to a file first.",
    )


def refuse_references(options: LoadOptions, label: str, files: int) -> None:
    """Rows that refer to others of their table may have them in a later part, and would be rejected for that.

    Raises:
        UsageError: there are several parts.
    """
    if options.run.commit_every is None and files == 1:
        return
    option = _option(options)
    raise UsageError(
        f"rows of {label} refer to others of it, which may stand in a later part of the source: with {option} and"
        " --on-error reject they would be rejected",
        code="not_divisible",
        hint=f"Leave {option} out.",
    )


def _option(options: LoadOptions) -> str:
    return "--commit-every" if options.run.commit_every else "--jobs"
