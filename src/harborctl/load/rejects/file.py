"""The reject file: bad rows as they stand in their source, and beside them where they stood and why they are bad.

It is of the source's own format and dialect, so that it can be put right and loaded like the source itself; whoever
reads it leaves the added columns out. It has a header even where the source has none. A record that could not be told
into fields stands in the last of the added columns, with its fields empty; a reader takes such a record from there.

The file is written beside its place under another name, brought to disk, and takes its name before the load commits.
"""

from __future__ import annotations

import codecs
import filecmp
import json
import os
import re
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from harborctl.errors import HarborctlError, UsageError
from harborctl.load.rejects.file_typed import AsParquet, AsValues
from harborctl.load.rejects.spool import Malformation, told_apart
from harborctl.model import RejectFormat, RejectReason, SourceFormat
from harborctl.sources.batch import RAW_COLUMN, REASON_COLUMNS
from harborctl.sources.files import STDIN
from harborctl.sources.jsonl import names_in, without_reject_fields
from harborctl.sources.transcode import encoded, shown
from harborctl.whole_file import written_whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from harborctl.load.plan.plan import Plan
    from harborctl.load.rejects.spool import ColumnKey, Rejected
    from harborctl.model import CsvDialect, RejectOptions
from harborctl.sources.batch import Original, Source

_SUFFIXES = {
    SourceFormat.CSV: "csv",
    SourceFormat.TSV: "tsv",
    SourceFormat.JSONL: "jsonl",
    SourceFormat.PARQUET: "parquet",
    SourceFormat.ARROW: "parquet",
    SourceFormat.JSON: "jsonl",
    SourceFormat.XLSX: "csv",
    SourceFormat.ODS: "csv",
    SourceFormat.FIXED: "csv",
    SourceFormat.COPY: "csv",
}


class Form(Protocol):
    """How rejects are written."""

    def begin(self, out: IO[bytes]) -> None:
        """What comes before the rows."""

    def add(self, rejected: Rejected, names: tuple[str, ...], reason: Sequence[str | int | None]) -> None:
        """A row of a source with these columns."""

    def end(self) -> None:
        """What comes behind the rows."""


class RejectFile:
    """Where the rejects of one load go.

    Args:
        plans: of each source.
        names: of each source the columns, as they are called when rows go by name.
        stem: what the file is called after, where no name was given.
        complete: all rows are in, so that a file which is there already may be this one.
    """

    def __init__(
        self, options: RejectOptions, dialect: CsvDialect, sources: Sequence[Source], plans: Sequence[Plan],
        names: Sequence[tuple[str, ...]], stem: str, *, complete: bool,
    ) -> None:  # fmt: skip
        self._sources = sources
        self._plans = plans
        self._names = names
        self._columns = tuple(dict.fromkeys(key for of_source in names for key in told_apart(of_source)))
        self._dialect = dialect
        self._format = _common_format(sources, options)
        suffix = "csv" if options.format else _SUFFIXES[self._format]
        self.path = Path(options.file or f"{stem}.rejects.{suffix}")
        self._as_csv = options.format is RejectFormat.CSV
        self._force = options.force
        self._is_there = False
        self.reasons: dict[tuple[str, str | None], RejectReason] = {}
        if any(self.path.resolve() == Path(source.name).resolve() for source in sources):
            raise UsageError(
                f"{self.path} is a source: its rejects cannot go there", hint="Name another with --reject-file."
            )
        is_other = self.path.exists() and not self.path.is_file()
        if is_other or not self.path.parent.is_dir() or options.file == STDIN:
            raise UsageError(f"{self.path} cannot be a reject file", code="bad_output", hint="Name a file in a folder.")
        if self.path.exists() and not (options.force or complete):
            raise UsageError(
                f"the reject file {self.path} is there already",
                code="reject_file_exists",
                hint="Load or remove it first, name another with --reject-file, or overwrite it with --force.",
            )

    def write(self, rejects: Iterable[Rejected], *, raw: bool) -> None:
        """Write all of them. `raw`: some are malformed. The file has its name afterwards.

        Raises:
            HarborctlError: it cannot be written.
        """
        give_name = Path.replace if self._force else _name
        with _told(self.path), written_whole(self.path.resolve(), give_name) as out:
            self._write(out, rejects, raw=raw)
        self._is_there = True

    def tally(self, rejects: Iterable[Rejected]) -> Iterator[Rejected]:
        """The same, counted by their reasons."""
        for rejected in rejects:
            reason = rejected.reason
            key = (reason.code, reason.column)
            known = self.reasons.get(key)
            if known is None:
                name = self._sources[rejected.source].name
                known = RejectReason(reason.code, reason.column, 0, reason.message, name, rejected.line, reason.value)
            self.reasons[key] = replace(known, count=known.count + 1)
            yield rejected

    def remove(self) -> None:
        """Take the file away again: the load that it is about did not happen."""
        if self._is_there:
            with suppress(OSError):
                self.path.unlink()
            self._is_there = False

    @property
    def is_there(self) -> bool:
        """Whether it has been written."""
        return self._is_there

    def _write(self, out: IO[bytes], rejects: Iterable[Rejected], *, raw: bool) -> None:
        form = self._form(raw=raw)
        form.begin(out)
        for rejected in self.tally(rejects):
            reason = rejected.reason
            name = self._sources[rejected.source].name
            told = (name, rejected.line, reason.column, reason.value, reason.code, reason.message)
            form.add(rejected, self._names[rejected.source], told)
        form.end()

    def _form(self, *, raw: bool) -> Form:
        if self._format in (SourceFormat.PARQUET, SourceFormat.ARROW):
            form = AsValues if self._as_csv else AsParquet
            return form(self._sources, self._plans)
        if self._format is SourceFormat.JSONL:
            return _AsJson(self._dialect.encoding)
        dialect = self._dialect
        if self._format is SourceFormat.TSV and dialect.delimiter == ",":
            dialect = replace(dialect, delimiter="\t")
        return _AsCsv(dialect, self._columns, raw=raw)


def _common_format(sources: Sequence[Source], options: RejectOptions) -> SourceFormat:
    formats = [source.format for source in sources]
    columnar = {SourceFormat.PARQUET, SourceFormat.ARROW}
    if len({SourceFormat.PARQUET if found in columnar else found for found in formats}) > 1:
        raise UsageError(
            "sources of several formats do not go into one reject file",
            code="formats_differ",
            hint="Load them one by one.",
        )
    if formats[0] is SourceFormat.JSONL and options.format is RejectFormat.CSV:
        raise UsageError(
            "--reject-format csv is for Parquet and Arrow: rejected lines of JSON stay JSON", code="reject_format"
        )
    return formats[0]


def _name(temporary: Path, path: Path) -> None:
    """Give the file its name, unless another has it that says something else."""
    try:
        os.link(temporary, path)
    except FileExistsError as error:
        if filecmp.cmp(temporary, path, shallow=False):
            temporary.unlink()
            return
        raise UsageError(
            f"the reject file {path.name} is there already",
            code="reject_file_exists",
            hint="Overwrite it with --force.",
        ) from error
    except OSError:  # a file system without links
        temporary.replace(path)
    else:
        temporary.unlink()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HarborctlError(
            f"cannot write the reject file {path}: {error.strerror}",
            code="cannot_write",
            hint="Check space and permissions, or name another with --reject-file. Nothing was committed.",
        ) from error


class _AsCsv:
    """In the source's dialect and encoding, the record's own text as it was."""

    def __init__(self, dialect: CsvDialect, columns: tuple[ColumnKey, ...], *, raw: bool) -> None:
        self._dialect = dialect
        self._columns = columns
        self._raw = raw

    def begin(self, out: IO[bytes]) -> None:
        self._out = out
        # A mark of the byte order belongs before the first character only.
        self._encoder = codecs.getincrementalencoder(self._dialect.encoding)("backslashreplace")
        self._write(
            self._joined([*(name for name, _ in self._columns), *REASON_COLUMNS, *([RAW_COLUMN] if self._raw else [])])
            + "\n"
        )

    def add(self, rejected: Rejected, names: tuple[str, ...], reason: Sequence[str | int | None]) -> None:
        original = rejected.original
        delimiter, told = self._dialect.delimiter, self._joined(reason)
        if isinstance(original, Malformation) and not original.splits:
            self._write(delimiter * len(self._columns) + told + delimiter)
            # Of a blank line nothing would be left but an empty field, which stands for none.
            self._write(encoded(self._quoted(original.text or b"\n"), self._dialect.encoding))
        else:
            text = original.text
            own = told_apart(names)
            if own != list(self._columns):
                fields = dict(zip(own, self._split(text), strict=True))
                text = delimiter.encode().join(fields.get(key, b"") for key in self._columns)
            self._write(encoded(text, self._dialect.encoding))
            self._write(delimiter + told + (delimiter if self._raw else ""))
        self._out.write(encoded(b"\n", self._dialect.encoding))

    def end(self) -> None: ...

    def _write(self, text: str | bytes) -> None:
        self._out.write(text if isinstance(text, bytes) else self._encoder.encode(text))

    def _split(self, text: bytes) -> list[bytes]:
        from harborctl.sources.csv.dialect import byte_dialect
        from harborctl.sources.csv.records import field_texts

        return field_texts(text, byte_dialect(self._dialect))

    def _joined(self, fields: Iterable[str | int | None]) -> str:
        return self._dialect.delimiter.join(self._field(field) for field in fields)

    def _field(self, field: str | int | None) -> str:
        if field is None:
            return ""
        text = str(field)
        if not self._dialect.quote:  # nothing could hold it together
            return re.sub(f"[\r\n{re.escape(self._dialect.delimiter)}]", lambda one: f"\\x{ord(one[0]):02x}", text)
        special = {self._dialect.delimiter, self._dialect.quote, "\n", "\r"}
        return self._quoted(text.encode(errors="backslashreplace")).decode() if special & set(text) else text

    def _quoted(self, text: bytes) -> bytes:
        quote = self._dialect.quote.encode()
        if not quote:  # it is the last field, and whoever reads it takes all that is there
            return text
        escape = (self._dialect.escape or self._dialect.quote).encode()
        if escape != quote:
            text = text.replace(escape, escape + escape)
        return quote + text.replace(quote, escape + quote) + quote


class _AsJson:
    """An object a line: the one that was there, with the reason in fields of its own. Values stay as written."""

    def __init__(self, encoding: str) -> None:
        self._encoding = encoding

    def begin(self, out: IO[bytes]) -> None:
        self._out = out
        out.write("".encode(self._encoding))  # a mark of the byte order, where the encoding has one

    def add(self, rejected: Rejected, names: tuple[str, ...], reason: Sequence[str | int | None]) -> None:
        self._out.write(encoded(self._line(rejected.original, names, reason), self._encoding))

    def _line(self, original: Malformation | Original, names: tuple[str, ...], reason: Sequence[Any]) -> bytes:
        # A field that no object of the file has would become its column's default; one that this object lacks is NULL.
        there = () if isinstance(original, Malformation) else names_in(original.text)
        fields = dict.fromkeys(name for name in names if name not in there) | dict(
            zip(REASON_COLUMNS, reason, strict=True)
        )
        told = json.dumps(fields, ensure_ascii=False).encode(errors="backslashreplace")
        if isinstance(original, Malformation):
            raw = json.dumps(shown(original.text), ensure_ascii=False).encode(errors="backslashreplace")
            return told[:-1] + b', "' + RAW_COLUMN.encode() + b'": ' + raw + b"}\n"
        own = without_reject_fields(original.text).strip()[:-1].rstrip()
        return own + (b"" if own.endswith(b"{") else b", ") + told[1:] + b"\n"

    def end(self) -> None: ...
