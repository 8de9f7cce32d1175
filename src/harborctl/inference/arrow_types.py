"""The PostgreSQL type that holds every value of an Arrow type unchanged."""

from __future__ import annotations

import pyarrow as pa
from pyarrow import types

# Arrow's extension types with a type of their own in PostgreSQL.
_EXTENSIONS = {"arrow.uuid": "uuid", "arrow.json": "jsonb", "arrow.bool8": "boolean"}

_PLAIN = (
    (types.is_boolean, "boolean"),
    (types.is_int8, "smallint"),
    (types.is_uint8, "smallint"),
    (types.is_int16, "smallint"),
    (types.is_uint16, "integer"),
    (types.is_int32, "integer"),
    (types.is_uint32, "bigint"),
    (types.is_int64, "bigint"),
    (types.is_uint64, "numeric(20,0)"),
    (types.is_float16, "real"),
    (types.is_float32, "real"),
    (types.is_float64, "double precision"),
    (types.is_date, "date"),
    (types.is_time, "time"),
    (types.is_duration, "interval"),
    (types.is_interval, "interval"),
    (types.is_binary, "bytea"),
    (types.is_large_binary, "bytea"),
    (types.is_fixed_size_binary, "bytea"),
)


def type_of(arrow: pa.DataType) -> str:
    """Lists of plain values are arrays; structs, maps and lists of these are jsonb."""
    if types.is_dictionary(arrow) or types.is_run_end_encoded(arrow):
        return type_of(arrow.value_type)
    if isinstance(arrow, pa.BaseExtensionType):
        return _EXTENSIONS.get(arrow.extension_name) or type_of(arrow.storage_type)
    if str(arrow) == "binary_view":
        return "bytea"
    if types.is_decimal(arrow):
        return f"numeric({max(arrow.precision, arrow.scale)},{arrow.scale})"
    if types.is_timestamp(arrow):
        return "timestamptz" if arrow.tz else "timestamp"
    if types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow) or _is_view(arrow):
        inner = type_of(arrow.value_type)
        return "jsonb" if inner == "jsonb" and types.is_nested(arrow.value_type) else f"{inner.removesuffix('[]')}[]"
    if types.is_struct(arrow) or types.is_map(arrow) or types.is_union(arrow):
        return "jsonb"
    return next((name for is_one, name in _PLAIN if is_one(arrow)), "text")


def _is_view(arrow: pa.DataType) -> bool:
    return types.is_list_view(arrow) or types.is_large_list_view(arrow)
