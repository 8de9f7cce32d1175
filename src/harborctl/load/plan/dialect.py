"""What of a CSV dialect goes by the columns of the table: which fields are NULL, and how decimals are written."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from harborctl.codecs.typed_input import Unstorable
from harborctl.errors import UsageError
from harborctl.load.plan.source_columns import listed
from harborctl.model import SourceFormat
from harborctl.nearest import did_you_mean
from harborctl.sqlstate import INVALID_TEXT_REPRESENTATION, UNDEFINED_COLUMN

if TYPE_CHECKING:
    from collections.abc import Collection

    from harborctl.codecs.codec import Codec
    from harborctl.db.catalog import TargetColumn
    from harborctl.model import CsvDialect
    from harborctl.sources.batch import Columns

EVERY = "*"

_WITH_DECIMALS = frozenset({"numeric", "float4", "float8"})
_WITH_COMMA = r"^[\s\v]*[-+]?[0-9]*,[0-9]*([eE][-+]?[0-9]+)?[\s\v]*$"


def has_dialect(source: Columns) -> bool:
    """Whether its fields are written in a CSV dialect."""
    return source.format in {SourceFormat.CSV, SourceFormat.TSV}


@dataclass(frozen=True, slots=True)
class NullRule:
    """COPY's FORCE_NULL and FORCE_NOT_NULL of one column, for fields of which what had no quotes and spelled NULL is.

    Both may be given: then only what has quotes is NULL.
    """

    spellings: tuple[str, ...]
    quoted_too: bool
    never_unquoted: bool

    def of(self, array: pa.Array) -> pa.Array:
        """Fields as the source has them → as the column has them."""
        found = array.fill_null(self.spellings[0]) if self.never_unquoted else array
        if self.quoted_too and not pa.types.is_null(array.type):
            spelled = pc.is_in(array, value_set=pa.array(self.spellings, pa.string()))
            found = pc.if_else(spelled, pa.scalar(None, array.type), found)
        return found


def null_rule(dialect: CsvDialect, column: str) -> NullRule | None:
    """What `--force-null` and `--force-not-null` say of a column of the table."""
    quoted_too = bool({EVERY, column} & set(dialect.force_null))
    never_unquoted = bool({EVERY, column} & set(dialect.force_not_null))
    return NullRule(dialect.nulls, quoted_too, never_unquoted) if quoted_too or never_unquoted else None


def check_forced(source: Columns, dialect: CsvDialect, filled: Collection[str]) -> None:
    """See that the columns which these options name are read from the source, as COPY does.

    Raises:
        UsageError: one is not.
    """
    for option, names in (("--force-null", dialect.force_null), ("--force-not-null", dialect.force_not_null)):
        for name in names:
            if name != EVERY and name not in filled:
                raise UsageError(
                    f"{option} names column {name}, which {source.name} does not fill",
                    code=UNDEFINED_COLUMN,
                    hint=did_you_mean(name, filled) or f"It takes columns of the table: {listed(filled)}.",
                )


def pointed(array: pa.Array, decimal: str) -> pa.Array:
    """Numbers with a point before their decimals. One that has a point is no number, and gets a space to say so."""
    dotted = pc.match_substring_regex(array, _WITH_COMMA.replace(",", "[.]"))
    array = pc.if_else(dotted, pc.binary_join_element_wise(array, " ", ""), array)
    return pc.if_else(pc.match_substring_regex(array, _WITH_COMMA), pc.replace_substring(array, decimal, "."), array)


def with_decimal(codec: Codec, column: TargetColumn, decimal: str) -> Codec:
    """The same for numbers whose decimals are behind another sign. A point could only be one between thousands, which
    no number has; read as one before decimals it would make 1.234 of 1234."""
    if decimal == "." or column.kind != "b" or column.base not in _WITH_DECIMALS:
        return codec

    def pointed(array: pa.Array) -> pa.Array:
        row = pc.index(pc.match_substring(array, "."), True).as_py()
        if row >= 0:
            value = array[row].as_py()
            reason = f'invalid number: "{value}" has a point, and decimals are behind a {decimal}'
            raise Unstorable(row, value, INVALID_TEXT_REPRESENTATION, reason)
        numbers = pc.match_substring_regex(array, _WITH_COMMA)
        return pc.if_else(numbers, pc.replace_substring(array, decimal, "."), array)

    return replace(
        codec,
        convert=lambda array: codec.convert(pointed(array)),
        text=lambda array: codec.text(pointed(array)),
        direct=None,
        written=codec.text,
    )
