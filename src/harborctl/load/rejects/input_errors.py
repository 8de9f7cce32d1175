"""Asks the server which texts a column's type does not read, all at once.

PostgreSQL 16 and later say so without an error; before that, and for types that still raise one, a temporary function
catches it. https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-VALIDITY
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harborctl.db.storage import done_here
from harborctl.load.write.bad_row import Reason
from harborctl.load.write.encode import text_columns

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from harborctl.load.plan.plan import Plan
    from harborctl.sources.batch import Batch

_SOFTLY = text("""
    SELECT given.position, error.sql_error_code AS code, error.message
    FROM pg_catalog.unnest(CAST(:values AS text[])) WITH ORDINALITY AS given (value, position),
         LATERAL pg_catalog.pg_input_error_info(given.value, :kind) AS error
    WHERE error.sql_error_code IS NOT NULL
""")

# The conversion of JSON calls the input function of each field, with the type's modifier, but reads JSON as JSON.
_MADE = text("""
    CREATE OR REPLACE FUNCTION pg_temp.harborctl_input_error(value text, kind text, OUT code text, OUT message text)
    LANGUAGE plpgsql AS $$
    BEGIN
        IF kind IN ('json', 'jsonb') THEN
            EXECUTE pg_catalog.format('SELECT CAST($1 AS %s)', kind) USING value;
        ELSE
            EXECUTE pg_catalog.format('SELECT * FROM pg_catalog.jsonb_to_record($1) AS given (v %s)', kind)
                USING pg_catalog.jsonb_build_object('v', value);
        END IF;
    EXCEPTION WHEN OTHERS THEN
        code := SQLSTATE;
        message := SQLERRM;
    END $$
""")
_CAUGHT = text("""
    SELECT given.position, error.code, error.message
    FROM pg_catalog.unnest(CAST(:values AS text[])) WITH ORDINALITY AS given (value, position),
         LATERAL pg_temp.harborctl_input_error(given.value, :kind) AS error
    WHERE error.code IS NOT NULL
""")


class Inputs:
    """The input functions of one session's server."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        version = connection.connection.driver_connection.info.server_version  # type: ignore[union-attr]
        self._softly = version >= 160000
        self._is_made = False

    def errors(self, plan: Plan, batch: Batch) -> dict[int, Reason]:
        """For each row with such a text, its first column that does not read it."""
        found: dict[int, Reason] = {}
        for planned, array in zip(plan.columns, text_columns(plan, batch), strict=True):
            # Without NULL: with array_nulls off an array that has one is read as if it had the text.
            given = [(row, value) for row, value in enumerate(array.to_pylist()) if value is not None]
            for number, code, message in self._of_column(plan, [value for _, value in given], planned.target.type):
                row, value = given[number]
                found.setdefault(row, Reason(code, message, planned.target.name, value))
        return found

    def _of_column(self, plan: Plan, values: list[str], kind: str) -> list[tuple[int, str, str]]:
        given = {"values": values, "kind": kind}
        if self._softly:
            try:
                with self._connection.begin_nested():
                    rows = self._connection.execute(_SOFTLY, given).all()
                    return [(row.position - 1, row.code, row.message) for row in rows]
            except DBAPIError as error:
                if error.connection_invalidated:
                    raise
                # an input function that raises: caught below
        try:
            with self._connection.begin_nested():
                if not self._is_made:
                    with done_here(self._connection, plan.target.storage):
                        self._connection.execute(_MADE)
                rows = self._connection.execute(_CAUGHT, given).all()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return []  # no right to temporary functions: dividing finds the rows, too
        self._is_made = True
        return [(row.position - 1, row.code, row.message) for row in rows]
