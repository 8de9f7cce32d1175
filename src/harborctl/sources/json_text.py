"""Values as JSON text, with numbers exactly as they were: the standard encoder would pass them through floats."""

from __future__ import annotations

import json
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any


def json_text(value: Any) -> str:
    """`value` as JSON. Dates and times are ISO 8601 strings, intervals seconds, bytes hexadecimal as PostgreSQL writes
    them. A list of pairs, which is how Arrow hands out a map, is an object.

    Raises:
        ValueError: JSON has no such value (NaN, infinity).
    """
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return (
            "{"
            + ",".join(f"{json.dumps(str(key), ensure_ascii=False)}:{json_text(item)}" for key, item in value.items())
            + "}"
        )
    if isinstance(value, list):
        if value and all(isinstance(item, tuple) for item in value):
            return json_text(dict(value))
        return "[" + ",".join(json_text(item) for item in value) + "]"
    if isinstance(value, timedelta):
        return str(Decimal(value // timedelta(microseconds=1)) / 10**6)
    if isinstance(value, (date, time)):
        value = value.isoformat()
    elif isinstance(value, bytes):
        value = "\\x" + value.hex()
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
