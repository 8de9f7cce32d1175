"""Statements of ours say which functions, operators and types they mean: those of `pg_catalog`.

Where nothing fits exactly the server takes what stands anywhere on the search path, and whoever may create in one of
its schemas may have put something there (CVE-2018-1058). So this compiler qualifies what Core leaves bare, for every
statement of the engine. Identifiers of tables are qualified where they are made, SQL written as text where it stands.
https://www.postgresql.org/docs/current/typeconv-func.html
"""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql.psycopg import PGCompiler_psycopg
from sqlalchemy.sql.compiler import FUNCTIONS
from sqlalchemy.types import String

# What Core writes between two operands → the operator's name.
_OPERATORS = {
    " = ": "=", " != ": "<>", " < ": "<", " <= ": "<=", " > ": ">", " >= ": ">=",
    " || ": "||", " + ": "+", " - ": "-", " * ": "*",
}  # fmt: skip
_CHOSEN = " OPERATOR("


class QualifiedCompiler(PGCompiler_psycopg):
    """SQLAlchemy's compiler for psycopg, with qualified names."""

    def visit_function(self, func: Any, add_to_result_map: Any = None, **kwargs: Any) -> str:
        """A call; what the grammar knows by itself (coalesce, CURRENT_USER) has no schema."""
        text = super().visit_function(func, add_to_result_map, **kwargs)
        is_grammar = func._deannotate().__class__ in FUNCTIONS
        return text if is_grammar or func.packagenames else f"pg_catalog.{text}"

    def _generate_generic_binary(self, binary: Any, opstring: str, eager_grouping: bool = False, **kw: Any) -> str:
        """Two operands. OPERATOR() binds in another way than the bare symbol does, hence the parentheses."""
        if opstring == " IS DISTINCT FROM ":
            return self._distinct(binary, **kw)
        name = _OPERATORS.get(opstring)
        if name is None and not opstring.startswith(_CHOSEN):
            return super()._generate_generic_binary(binary, opstring, eager_grouping, **kw)
        qualified = opstring if name is None else f"{_CHOSEN}pg_catalog.{name}) "
        return f"({super()._generate_generic_binary(binary, qualified, False, **kw)})"

    def _distinct(self, binary: Any, **kw: Any) -> str:
        """IS DISTINCT FROM, whose `=` cannot be named. Rows mostly are equal, so that is asked first."""
        left, right = self.process(binary.left, **kw), self.process(binary.right, **kw)
        differ = f"(({left}) OPERATOR(pg_catalog.=) ({right})) IS NOT TRUE"
        return f"({differ} AND NOT (({left}) IS NULL AND ({right}) IS NULL))"

    def render_bind_cast(self, type_: Any, dbapi_type: Any, sqltext: str) -> str:
        """A parameter's type. Texts are `text`: functions of the catalog take that, and not one takes `varchar`."""
        if dbapi_type._type_affinity is String:
            return f"{sqltext}::pg_catalog.text"
        return str(super().render_bind_cast(type_, dbapi_type, sqltext))  # type: ignore[no-untyped-call]  # it has none
