"""Reads a file once, and tells what is in it: columns, types, what is odd, and the table that it would get."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa

from harborctl.codecs.literals import Inexpressible, text_form
from harborctl.db.create_table import creation
from harborctl.errors import HarborctlError, UsageError
from harborctl.inference.scan import Scan
from harborctl.inspection.profile import ColumnReport, Profile, Sample
from harborctl.load.plan.new_table import field_rules, new_columns
from harborctl.load.plan.source_columns import snake
from harborctl.model import CreateOptions, LoadOptions, Names
from harborctl.sources.detect import Detected, detect
from harborctl.sources.files import find_files
from harborctl.sources.open import open_file, refuse_strange_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.errors import BadRow
    from harborctl.inference.scan import Seen
    from harborctl.model import CsvDialect, InspectOptions
    from harborctl.sources.files import SourceFile

FIRST_ROWS = 5
_TOTALS = ("total", "grand total", "sum", "summe", "gesamt", "gesamtsumme", "subtotal", "totals", "totale", "insgesamt")


@dataclass(frozen=True, slots=True)
class Malformed:
    """Records that are not of the format: how many, and what is wrong with the first."""

    count: int
    line: int | None
    message: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What is in a file.

    Attributes:
        bytes: its size on disk.
        encoding, delimiter, header: of a text; None of others.
        options: by which it was read; those that were given, and those that were found.
        rows: that were looked at; `complete` says whether these are all.
        ddl: the CREATE TABLE that it would get; None if it cannot get one, which a warning tells.
    """

    path: str
    format: str
    bytes: int | None
    compression: str | None
    encoding: str | None
    delimiter: str | None
    header: bool | None
    options: tuple[str, ...]
    rows: int
    complete: bool
    malformed: Malformed | None
    columns: tuple[ColumnReport, ...]
    first_rows: tuple[tuple[str | None, ...], ...]
    warnings: tuple[str, ...]
    ddl: str | None


@dataclass(slots=True)
class _Look:
    """Sees what a scan reads."""

    profiles: dict[int, Profile] = field(default_factory=dict)
    sample: Sample = field(default_factory=Sample)
    first: list[tuple[str | None, ...]] = field(default_factory=list)
    last: tuple[str | None, ...] = ()
    bad: int = 0
    first_bad: BadRow | None = None

    def see(self, positions: Sequence[int], arrays: Sequence[pa.Array]) -> None:
        """See `Look`."""
        texts = [_as_text(array) for array in arrays]
        rows = len(texts[0]) if texts else 0
        sampled = self.sample.of(rows)
        for position, text in zip(positions, texts, strict=True):
            self.profiles.setdefault(position, Profile()).see(text, sampled)
        while (first := self.sample.thinned()) is not None:
            for profile in self.profiles.values():
                profile.thin_out(first)
        for row in range(min(rows, FIRST_ROWS - len(self.first))):
            self.first.append(tuple(text[row].as_py() for text in texts))
        if rows:
            self.last = tuple(text[rows - 1].as_py() for text in texts)

    def malformed(self, error: BadRow, before: int, record: bytes, *, splits: bool) -> None:  # noqa: ARG002
        """See `Look`."""
        self.bad += 1
        self.first_bad = self.first_bad or error


def _as_text(array: pa.Array) -> pa.Array:
    try:
        return text_form(array)
    except (Inexpressible, pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        return pa.array([None if value is None else str(value) for value in array.to_pylist()], pa.string())


def inspect_file(options: InspectOptions) -> Inspection:
    """Read the file.

    Raises:
        SourceError, UsageError: it cannot be read, or there are several.
    """
    file, dialect, found = settled(options)
    refuse_strange_options(dialect, [file])
    load = LoadOptions(
        (options.source,), dialect=dialect, create=CreateOptions(create=True, names=options.names or Names.KEEP)
    )
    look, scan = _Look(), Scan(partial(field_rules, load))
    scan.see_all([partial(open_file, file, dialect)], options.rows, look)
    seen = scan.seen()
    reports = tuple(
        look.profiles.get(position, Profile()).report(inferred) for position, inferred in seen.inferred.items()
    )
    rows = max((profile.rows for profile in look.profiles.values()), default=0)
    ddl, obstacle = _ddl(file, seen, load)
    is_text = file.format.value in {"csv", "tsv", "jsonl", "json", "fixed", "copy"}
    has_dialect = file.format.value in {"csv", "tsv"}
    with closing(open_file(file, dialect)) as source:
        size = source.size
    return Inspection(
        path=file.name,
        format=file.format.value,
        bytes=size,
        compression=file.compression,
        encoding=dialect.encoding if is_text else None,
        delimiter=("\t" if file.format.value == "tsv" and dialect.delimiter == "," else dialect.delimiter)
        if has_dialect
        else None,
        header=dialect.header if has_dialect else None,
        options=found.options if found else (),
        rows=rows,
        complete=options.rows is None or rows < options.rows,
        malformed=_malformed(look),
        columns=reports,
        first_rows=tuple(look.first),
        warnings=(*obstacle, *_warnings(look, seen, reports)),
        ddl=ddl,
    )


def settled(options: InspectOptions) -> tuple[SourceFile, CsvDialect, Detected | None]:
    """The file, how it is written, and what of that was found by looking."""
    files = find_files((options.source,), options.format, options.layout)
    if len(files) > 1:
        raise UsageError(f"{options.source} are {len(files)} files", hint="inspect looks at one file.")
    if files[0].path is None:
        raise UsageError(
            f"{files[0].name} can be read only once", code="read_once", hint="Save it to a file, and inspect that."
        )
    if not options.detect:
        return files[0], options.dialect, None
    found = detect(files[0], options.dialect)
    return files[0], found.dialect, found


def _malformed(look: _Look) -> Malformed | None:
    if look.first_bad is None:
        return None
    place = look.first_bad.location
    return Malformed(look.bad, place.line if place else None, look.first_bad.message)


def _ddl(file: SourceFile, seen: Seen, options: LoadOptions) -> tuple[str | None, list[str]]:
    stem = file.name.rsplit("/", 1)[-1].split(".")[0]
    name = snake(stem) if options.create.names is Names.SNAKE else stem
    try:
        columns = new_columns(seen, options, {})
    except HarborctlError as error:
        return None, [f"{error.message}. {error.hint or ''}".strip()]
    return creation(None, name, [(column.name, column.type) for column in columns]) + ";", []


def _warnings(look: _Look, seen: Seen, reports: Sequence[ColumnReport]) -> list[str]:
    found = []
    first = next((text for text in look.last if text), "")
    if look.first and first.strip().lower().rstrip(":") in _TOTALS:
        found.append(f"the last row, which begins with {first}, looks like totals: --skip-footer 1 leaves it out")
    names = [seen.schema.names[position] for position in seen.inferred]
    if seen.named and any(name != name.strip() for name in names):
        found.append("names of columns have spaces around them: --names snake takes them away")
    empty = [report.name for report in reports if look.first and report.nulls and not report.distinct]
    if empty:
        found.append(f"nothing but NULLs: {', '.join(empty)}")
    if keys := [report.name for report in reports if report.may_be_key]:
        found.append(f"each value stands there once, as far as was seen, so that it may be a key: {', '.join(keys)}")
    return found


def with_dialect(options: InspectOptions) -> LoadOptions:
    """A load of the file into the table that the options name."""
    _, dialect, _ = settled(options)
    return replace(
        LoadOptions((options.source,), table=options.table, format=options.format),
        dialect=dialect,
        layout=options.layout,
    )
