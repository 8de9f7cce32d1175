"""What a file is by its first bytes, told when it is read as CSV and is something else."""

from __future__ import annotations

import codecs

from harborctl.errors import SourceError

_COMPRESSED = (
    (b"\x1f\x8b", "gzip", "zcat"),
    (b"\x28\xb5\x2f\xfd", "Zstandard", "zstdcat"),
    *((b"BZh%d1AY&SY" % level, "bzip2", "bzcat") for level in range(1, 10)),
    (b"\x04\x22\x4d\x18", "LZ4", "lz4cat"),
    (b"\xfd7zXZ\0", "xz", "xzcat"),
)
# Behind the mark of Parquet a Thrift structure begins with a field of 32 bits.
_FORMATS = ((b"PAR1\x15", "Parquet", "parquet"), (b"PARE\x15", "Parquet", "parquet"), (b"ARROW1\0\0", "Arrow", "arrow"))
_UTF16 = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))

# So many bytes tell.
ENOUGH = 64 * 1024


def refuse_other_formats(name: str, start: bytes) -> None:
    """`start` are the first bytes inside a file that is to be text of an encoding other than UTF-16 and UTF-32.

    Raises:
        SourceError: it is no text, or of an encoding that it was not to have.
    """
    found = _compressed(name, start) or _format(name, start) or _encoding(start)
    if found is not None:
        what, hint = found
        raise SourceError(f"{name} is {what}, not CSV", code="other_format", hint=hint)


def _compressed(name: str, start: bytes) -> tuple[str, str] | None:
    for mark, what, program in _COMPRESSED:
        if start.startswith(mark):
            return f"compressed by {what}", f"Decompress it: {program} < {name} | harborctl load - --table TABLE"
    if start.startswith((b"PK\3\4", b"PK\5\6")):
        if b"[Content_Types].xml" in start or b"xl/" in start:
            return "an Excel workbook", "Say --format xlsx."
        return "a zip archive", "Load it from a file whose name ends in .zip."
    return None


def _format(name: str, start: bytes) -> tuple[str, str] | None:
    for mark, what, option in _FORMATS:
        if start.startswith(mark):
            if name == "stdin" and option == "parquet":
                return f"a {what} file", "Save it to a file, and load that with --format parquet."
            return f"a{'n' if what == 'Arrow' else ''} {what} file", f"Say --format {option}."
    return None


def _encoding(start: bytes) -> tuple[str, str] | None:
    for mark, option in _UTF16:
        if start.startswith(mark):
            return "UTF-16", f"Say --encoding {option}."
    # Without a mark: letters of the first line have a zero byte beside them.
    line = start[:16]
    if len(line) >= 8 and not any(line[1::2]) and all(line[0::2]):
        return "UTF-16", "Say --encoding utf-16-le."
    if len(line) >= 8 and not any(line[0::2]) and all(line[1::2]):
        return "UTF-16", "Say --encoding utf-16-be."
    return None
