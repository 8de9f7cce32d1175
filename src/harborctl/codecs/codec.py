"""Which source value becomes which PostgreSQL value, exactly. Pure: no server is asked here.

COPY is the oracle. A text field goes the fast way (Arrow parses it, the binary form is sent) only where Arrow and
PostgreSQL provably read it alike (`text_rules`); `NotPlain` sends the batch as text to the server, whose own functions
read it. A typed value either arrives unchanged or is `Unstorable` (`typed_rules`): nothing is rounded, cut or moved to
another zone. Columns without a rule always travel as text (`text_forms`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from harborctl.codecs.json_input import is_json, is_nested, literals
from harborctl.codecs.literals import bare, is_binary, is_text, text_form
from harborctl.codecs.text_input import NotPlain, Session, every, text_rule
from harborctl.codecs.typed_input import Unstorable, located, typed_rule, utf8
from harborctl.errors import TargetError
from harborctl.sources.json_values import JsonValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from harborctl.db.catalog import TargetColumn

__all__ = ["Codec", "NotPlain", "Session", "Unstorable", "codec"]


@dataclass(frozen=True, slots=True)
class Codec:
    """How one source column goes into one target column.

    Attributes:
        arrow: the type that the binary encoder takes; None where there is no exact binary way.
        convert: source array → array of type `arrow`. Raises NotPlain or Unstorable.
        text: source array → `string` array in PostgreSQL's input syntax, for the server to read. Raises Unstorable.
        direct: the type that a reader of text may make of it right away, for `convert` and `text` to take as it is.
        written: source array → `string` array as the source has it, where that is not `text`.
    """

    arrow: pa.DataType | None
    convert: Callable[[pa.Array], pa.Array]
    text: Callable[[pa.Array], pa.Array]
    direct: pa.DataType | None = None
    written: Callable[[pa.Array], pa.Array] | None = None


def codec(source: pa.DataType, column: TargetColumn, session: Session) -> Codec:
    """The way from a `source` column into `column`.

    Raises:
        TargetError: there is none that keeps the values as they are.
    """
    if isinstance(source, JsonValue):
        return _json_codec(column, session)
    if isinstance(source, pa.UuidType) and column.base in ("uuid", "bytea"):
        inner = codec(source.storage_type, column, session)
        return Codec(inner.arrow, lambda array: inner.convert(array.storage), lambda array: inner.text(array.storage))
    plain = _bare_type(source, column)
    if plain != source:
        inner = codec(plain, column, session)
        return Codec(inner.arrow, lambda array: inner.convert(bare(array)), lambda array: inner.text(bare(array)))
    if types.is_null(source):
        rule = text_rule(column, session)
        arrow = rule[0] if rule else pa.string()
        return Codec(arrow, lambda array: array.cast(arrow), text_form)
    if is_text(source) or (is_binary(source) and not _takes_bytes(source, column)):
        texts = _text_codec(source, column, session)
        return _uuid_codec(texts, column) if is_binary(source) and column.base == "uuid" else texts
    typed = typed_rule(source, column, lambda inner, part: codec(inner, part, session).text)
    return Codec(typed.arrow, located(typed.convert, column), located(typed.text, column))


def _json_codec(column: TargetColumn, session: Session) -> Codec:
    """JSON goes into documents as it stands, and into arrays and rows by what it is made of. Of other values the reader
    tells the text (see `Codec.direct`), which COPY would read, too."""
    if is_json(column):
        return _text_codec(pa.string(), column, session)
    if is_nested(column):
        return Codec(None, _not_plain, lambda array: literals(array, column))
    return replace(_text_codec(pa.string(), column, session), direct=pa.string())


def _bare_type(source: pa.DataType, column: TargetColumn) -> pa.DataType:
    """What `bare` makes of values of this type. Also finds out whether they can be written at all."""
    try:
        nothing = bare(pa.nulls(0, source))
        text_form(nothing)
    except pa.ArrowNotImplementedError as error:
        raise TargetError(
            f"the source's column {column.name} is {source}, which cannot be loaded",
            code="unknown_type",
            column=column.name,
        ) from error
    return nothing.type


def _takes_bytes(source: pa.DataType, column: TargetColumn) -> bool:
    return column.base == "bytea" or (
        column.base == "uuid" and bool(types.is_fixed_size_binary(source)) and source.byte_width == 16
    )


def _text_codec(source: pa.DataType, column: TargetColumn, session: Session) -> Codec:
    """Text is read as COPY would read it, whatever it stood in; bytes count as text where the column takes no bytes."""
    valid = located(utf8, column)
    rule = text_rule(column, session)
    if rule is None:
        return Codec(None, _not_plain, valid)
    arrow, convert = rule
    if types.is_string(source) and (types.is_date(arrow) or types.is_decimal(arrow) or types.is_integer(arrow)):
        return Codec(
            arrow,
            lambda array: array if array.type == arrow else convert(array),
            lambda array: text_form(array) if array.type == arrow else valid(array),
            direct=arrow,
        )
    if types.is_string(source):
        return Codec(arrow, convert, valid)  # whether text is UTF-8 the server finds out anyway
    return Codec(arrow, lambda array: convert(valid(array)), valid)


def _uuid_codec(texts: Codec, column: TargetColumn) -> Codec:
    """Bytes are a UUID as it is if there are 16 of them: no text of one is so short."""

    def are_raw(array: pa.Array) -> pa.Array:
        return pc.equal(pc.binary_length(array), 16)

    def text(array: pa.Array) -> pa.Array:
        array = array.cast(pa.binary())
        digits = pc.utf8_slice_codeunits(text_form(pc.if_else(are_raw(array), array, None)), len("\\x"))
        return pc.coalesce(digits, utf8(pc.if_else(are_raw(array), None, array)))

    located_text = located(text, column)

    def convert(array: pa.Array) -> pa.Array:
        array = array.cast(pa.binary())
        if every(are_raw(array)):
            return array.cast(pa.binary(16))
        return texts.convert(located_text(array).cast(pa.binary()))

    return Codec(texts.arrow, convert, located_text)


def _not_plain(_array: pa.Array) -> pa.Array:
    raise NotPlain
