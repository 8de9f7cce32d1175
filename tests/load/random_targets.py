"""Random tables, as large databases have them, and random loads into them."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

Row = dict[str, str | None]

# What the server may be able to do.
ICU, NOT_ENFORCED, VIRTUAL = "icu", "not enforced", "virtual"

# Of each column the values that fields have, and its type.
WORDS = ("a", "b", "B", "", "x", "drop", None)
EXTRA: dict[str, tuple[str, tuple[str | None, ...]]] = {
    "p": ("point", ("(1.00000001,2)", "(1.00000002,2)", "(1,2)", None)),
    "d": ("date", ("2026-03-04", "2026-04-03", None)),
    "n": ("numeric", ("1.0", "1.00", "2", None)),
    "m": ("numeric(4,1)", ("1.04", "1.0", "1.06", "1", "1", "99999")),
    "w": ("~S~.word", ("a", "b", "a", "b", "bad")),
    "e": ("~S~.mood", ("low", "high", None)),
    "o": ("~S~.duo", ("(1.00000001,a)", "(1.00000002,a)", '(1,"")', "(1,)", None)),
    "j": ("json", ('{"a":1}', '{"a": 1}', None)),
    "jb": ("jsonb", ('{"a":1}', '{"a": 1}', '{"a": 1.0}', None)),
    "f": ("float8[]", ("{0.1,1.00000001}", "{0.1,1.00000002}", "{}", "{NULL}")),
    "c": ("char(3)", ("a", "a  ", "b")),
    "b": ("bytea", ("\\x00ff", "\\x", "abc", None)),
    "i": ("interval", ("1 day", "24:00", "1 mon", None)),
    "ts": ("timestamptz", ("2026-03-04 05:06", "2026-03-04 05:06+00", None)),
    "s": ("int4range", ("[1,3)", "[1,2]", "empty", None)),
}
TYPES = (
    "CREATE DOMAIN ~S~.word AS text CHECK (value <> 'bad')",
    "CREATE TYPE ~S~.mood AS ENUM ('low', 'high')",
    "CREATE TYPE ~S~.duo AS (x float8, y text)",
)
ODD_SETTINGS = (
    "-c extra_float_digits=-10",
    "-c DateStyle=SQL,DMY",
    "-c TimeZone=Asia/Kathmandu -c IntervalStyle=iso_8601",
    "-c bytea_output=escape -c standard_conforming_strings=off",
    "-c search_path=pg_catalog",
    "-c enable_hashjoin=off -c enable_mergejoin=off",
    "-c enable_seqscan=off -c enable_nestloop=off",
    "-c default_transaction_isolation=serializable",
    "-c transform_null_equals=on -c array_nulls=off",
    "-c quote_all_identifiers=on -c constraint_exclusion=on",
    "-c enable_partition_pruning=off -c jit=on -c jit_above_cost=0",
    "-c plpgsql.variable_conflict=use_column -c check_function_bodies=off",
)
# Rows of a fifth of the loads have a key that is none.
BAD_KEYS = (None, "seven", "99999999999")


@dataclass
class Table:
    """A definition, with ~S~ in the place of the schema's name, ~R~ in that of the user's who loads, and ~IMMEDIATE~
    where the twin has a constraint checked later.

    Attributes:
        key: columns that identify a row; `option` is what --key says; `condition` limits the index.
        before: rows have BEFORE triggers.
        granted: another user than the owner loads, with rights on the columns of the file only.
        hides: a policy hides rows from that user.
        loose: values of `l` are the same whatever the case of their letters.
        nulls: NULL in the key is equal to NULL.
        lowers: at which of INSERT and UPDATE a trigger changes the key; in the partition `low` only if `lowers_low`.
        rules: the event of each rule of the table, and whether it fires.
        refers: rows refer to others of the table: what becomes of them if those are deleted.
        late: that is checked at commit.
        pointed: another table refers to this one, or a partition of it: what becomes of its rows.
    """

    ddl: list[str]
    columns: dict[str, tuple[str | None, ...]]
    types: dict[str, str]
    key: tuple[str, ...]
    option: tuple[str, ...]
    partitioned: bool = False
    condition: bool = False
    before: bool = False
    granted: bool = False
    hides: bool = False
    loose: bool = False
    nulls: bool = False
    lowers: tuple[str, ...] = ()
    lowers_low: bool = False
    rules: tuple[tuple[str, bool], ...] = ()
    refers: str | None = None
    late: bool = False
    pointed: str | None = None
    pointed_place: str = "t"
    required: set[str] = field(default_factory=set)
    options: str = ""


KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...], str | None]] = {
    "k": (("k",), (), None),
    "pair": (("k", "l"), ("k", "l"), "(k, l)"),
    "nulls": (("k", "l"), ("k", "l"), "(k, l) NULLS NOT DISTINCT"),
    "lower": (("k", "l"), ("k", "lower(l)"), "(k, lower(l))"),
    "partial": (("k",), ("k",), "(k) WHERE live"),
}


def random_table(draw: random.Random, letters: str, able: set[str]) -> Table:
    """A table for a database that has these letters beside ASCII, on a server that is able to do this."""
    types = {"k": "integer", "l": "text", "v": "text", "at": "integer"}
    values: dict[str, tuple[str | None, ...]] = {
        "k": tuple(map(str, range(7))), "l": ("a", "b", "A"), "v": (*WORDS, *letters), "at": ("1", "2", None),
    }  # fmt: skip
    for name in draw.sample(list(EXTRA), draw.randint(0, 3)):
        types[name], values[name] = EXTRA[name]
    partitioned = draw.random() < 0.4
    kind = draw.choice(["k", "k", "pair", "nulls"] if partitioned else ["k", "k", *KINDS])
    key, option, index = KINDS[kind]
    if kind == "partial":
        types["live"], values["live"] = "boolean", ("t", "t", "f")
    if kind == "nulls" or (kind != "k" and draw.random() < 0.2):
        values["l"] = (*values["l"], None)
    table = Table([*TYPES], values, types, key, option, partitioned, kind == "partial", nulls=kind == "nulls")
    table.required = {"k"} | ({"v"} if draw.random() < 0.3 else set())
    specs = _columns(draw, table, able)
    if kind == "k":
        specs.append("PRIMARY KEY (k)")
    table.ddl += [
        "CREATE TABLE ~S~.noted (what text, k integer, v text)",
        "CREATE TABLE ~S~.looked_up (r integer PRIMARY KEY); INSERT INTO ~S~.looked_up VALUES (1), (2)",
        f"CREATE TABLE ~S~.t ({', '.join(specs)}){' PARTITION BY RANGE (k)' if partitioned else ''}",
    ]
    if partitioned:
        table.ddl += _partitions(draw, specs)
    if index:
        table.ddl.append(f"CREATE UNIQUE INDEX t_key ON ~S~.t {index}")
    _add_constraints(draw, table, able, kind)
    _add_triggers(draw, table)
    _add_rules(draw, table)
    _add_rights(draw, table)
    if draw.random() < 0.5:
        table.options = draw.choice(ODD_SETTINGS)
    return table


def _columns(draw: random.Random, table: Table, able: set[str]) -> list[str]:
    collations = {"l": "", "v": ""}
    if draw.random() < 0.3:
        collations["l"] = ' COLLATE "POSIX"'
    if ICU in able:
        table.ddl.append(
            "CREATE COLLATION ~S~.loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
        )
        table.loose = draw.random() < 0.3
        if table.loose:
            collations["l"] = " COLLATE ~S~.loose"
        if draw.random() < 0.3:
            collations["v"] = " COLLATE ~S~.loose"
    specs = [
        f"{name} {kind}{collations.get(name, '')}{' NOT NULL' if name in table.required else ''}"
        for name, kind in table.types.items()
    ]
    if not table.partitioned and not table.option and draw.random() < 0.3:
        specs[0] = "k integer GENERATED ALWAYS AS IDENTITY NOT NULL"
    virtual = "VIRTUAL" if VIRTUAL in able and draw.random() < 0.5 else "STORED"
    specs += draw.sample(
        [f"g integer GENERATED ALWAYS AS (length(v)) {virtual}", "left_out text DEFAULT 'd' NOT NULL", "empty text"],
        draw.randint(0, 2),
    )
    draw.shuffle(specs)
    return specs


def _partitions(draw: random.Random, specs: list[str]) -> list[str]:
    """Of two levels, with columns in other orders."""
    columns = [spec for spec in specs if not spec.startswith("PRIMARY")]
    ddl = []
    for name in ("low", "rest", "one"):
        draw.shuffle(columns)
        below = " PARTITION BY HASH (k)" if name == "rest" else ""
        ddl.append(f"CREATE TABLE ~S~.{name} (gone integer, {', '.join(columns)}){below}")
        ddl.append(f"ALTER TABLE ~S~.{name} DROP COLUMN gone")
    ddl += [
        "ALTER TABLE ~S~.t ATTACH PARTITION ~S~.low FOR VALUES FROM (0) TO (3)",
        "ALTER TABLE ~S~.rest ATTACH PARTITION ~S~.one FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE ~S~.two PARTITION OF ~S~.rest FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
        "ALTER TABLE ~S~.t ATTACH PARTITION ~S~.rest DEFAULT",
    ]
    if draw.random() < 0.5:
        ddl.append("CREATE INDEX ON ~S~.one (at)")
    return ddl


def _add_constraints(draw: random.Random, table: Table, able: set[str], kind: str) -> None:
    force = draw.choice(["", "", " NOT VALID", " NOT ENFORCED" if NOT_ENFORCED in able else ""])
    place = draw.choice(["t", "low", "one"]) if table.partitioned else "t"
    if draw.random() < 0.3:
        if force == " NOT VALID":
            table.ddl.append("INSERT INTO ~S~.t (k, l, v, at) OVERRIDING SYSTEM VALUE VALUES (2, 'a', 'x', 2)")
        table.ddl.append(f"ALTER TABLE ~S~.{place} ADD CONSTRAINT at_is_small CHECK (at < 2 OR v <> 'x'){force}")
    if draw.random() < 0.3:
        table.ddl.append("CREATE INDEX ON ~S~.t (upper(v)) WHERE at > 1")
    if draw.random() < 0.2:
        table.types["r"], table.columns["r"] = "integer", ("1", "2", "1", "2", None, "3")
        late = draw.choice(["", " DEFERRABLE INITIALLY DEFERRED"])
        on_whole = table.partitioned and place == "t"  # of these NOT VALID is for partitions only, up to 17
        table.ddl += [
            "ALTER TABLE ~S~.t ADD r integer",
            f"ALTER TABLE ~S~.{place} ADD FOREIGN KEY (r) REFERENCES ~S~.looked_up{late}{'' if on_whole else force}",
        ]
    if kind in {"pair", "nulls"} and ICU in able and not table.loose and draw.random() < 0.3:
        table.ddl.append("CREATE UNIQUE INDEX folded ON ~S~.t (k, l COLLATE ~S~.loose)")
    if kind != "k":
        return
    as_owner = "RETURNS SETOF integer LANGUAGE sql SECURITY DEFINER"
    if draw.random() < 0.3 and not table.partitioned:
        table.ddl.append("ALTER TABLE ~S~.t ADD CONSTRAINT again UNIQUE (k) DEFERRABLE INITIALLY DEFERRED")
    if draw.random() < 0.3:
        table.types["up"], table.columns["up"] = "integer", (*map(str, range(8)), None, None)
        table.refers, table.late = draw.choice(["NO ACTION", "NO ACTION", "SET NULL", "CASCADE"]), draw.random() < 0.3
        late = "DEFERRABLE INITIALLY DEFERRED" if table.late else "~IMMEDIATE~"
        reference = f"REFERENCES ~S~.t (k) ON DELETE {table.refers} {late}"
        lost = "up IS NOT NULL AND NOT EXISTS (SELECT FROM ~S~.t AS u WHERE u.k = t.up)"
        table.ddl += [
            "ALTER TABLE ~S~.t ADD up integer",
            f"ALTER TABLE ~S~.t ADD CONSTRAINT t_up FOREIGN KEY (up) {reference}",
            f"CREATE FUNCTION ~S~.dangling() {as_owner} AS 'SELECT k FROM ~S~.t AS t WHERE {lost}'",
        ]
    elif draw.random() < 0.2:
        table.pointed, table.pointed_place = draw.choice(["NO ACTION", "SET NULL", "CASCADE"]), place
        reference = f"REFERENCES ~S~.{place} (k) ON DELETE {table.pointed}"
        table.ddl += [
            f"CREATE TABLE ~S~.pointing (k integer {reference})",
            f"CREATE FUNCTION ~S~.pointing() {as_owner} AS 'SELECT k FROM ~S~.pointing'",
        ]


_BODIES = {
    "change": "NEW.v := upper(NEW.v); RETURN NEW",
    "fill": "NEW.v := coalesce(NEW.v, 'filled'); RETURN NEW",
    "drop": "IF NEW.v = 'drop' THEN RETURN NULL; END IF; RETURN NEW",
    "refuse": "IF NEW.v = 'b' THEN RAISE EXCEPTION 'no b'; END IF; RETURN NEW",
    "lowers": "NEW.l := lower(NEW.l); RETURN NEW",
    "note": "INSERT INTO ~S~.noted SELECT TG_OP, CASE TG_OP WHEN 'DELETE' THEN OLD.k ELSE NEW.k END,"
    " CASE TG_OP WHEN 'DELETE' THEN OLD.v ELSE NEW.v END; RETURN NULL",
    "note_all": "INSERT INTO ~S~.noted SELECT 'all', k, v FROM new; RETURN NULL",
    "late": "IF NEW.v = 'x' THEN RAISE EXCEPTION 'no x'; END IF; RETURN NULL",
    "more": "INSERT INTO ~S~.t (k, l, v) OVERRIDING SYSTEM VALUE SELECT NEW.k + 100, 'm', 'more'"
    " WHERE NOT EXISTS (SELECT FROM ~S~.t WHERE k = NEW.k + 100); RETURN NULL",
}
_AFTER = {"note", "note_all", "late", "more"}


def _add_triggers(draw: random.Random, table: Table) -> None:
    for name in draw.sample(list(_BODIES), draw.choice([0, 0, 1, 2, 3])):
        where = draw.choice(["t", "low", "one"]) if table.partitioned else "t"
        events = draw.choice(["INSERT", "UPDATE", "INSERT OR UPDATE"])
        kind, each = "TRIGGER", "FOR EACH ROW"
        when = f"{'AFTER' if name in _AFTER else 'BEFORE'} {events}"
        if name == "note":
            when += " OR DELETE"
        elif name == "note_all":
            where, when, each = "t", "AFTER INSERT", "REFERENCING NEW TABLE AS new FOR EACH STATEMENT"
        elif name == "late":
            kind, each = "CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"
        elif name == "lowers":
            where = "low" if where == "low" else "t"
        elif name == "more":
            when, each = "AFTER INSERT", "FOR EACH ROW WHEN (NEW.k < 100)"
        table.ddl += [
            f"CREATE FUNCTION ~S~.{name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_BODIES[name]}; END $$",
            f"ALTER FUNCTION ~S~.{name}() SECURITY DEFINER",
            f"CREATE {kind} {name} {when} ON ~S~.{where} {each} EXECUTE FUNCTION ~S~.{name}()",
        ]
        if draw.random() < 0.1:
            table.ddl.append(f"ALTER TABLE ~S~.{where} DISABLE TRIGGER {name}")
            continue
        table.before |= name not in _AFTER
        if name == "lowers":
            table.lowers, table.lowers_low = tuple(events.split(" OR ")), where == "low"


def _add_rules(draw: random.Random, table: Table) -> None:
    if draw.random() < 0.9:
        return
    # A rule of a partition is not met by who writes to the whole.
    where = draw.choice(["t", "low"]) if table.partitioned else "t"
    event = draw.choice(["INSERT", "UPDATE", "DELETE"])
    row = "OLD" if event == "DELETE" else "NEW"
    what = draw.choice([f"ALSO INSERT INTO ~S~.noted VALUES ('rule', {row}.k)", "INSTEAD NOTHING"])
    fires = draw.random() < 0.7
    table.ddl.append(f"CREATE RULE told AS ON {event} TO ~S~.{where} DO {what}")
    if not fires:
        table.ddl.append(f"ALTER TABLE ~S~.{where} DISABLE RULE told")
    if where == "t":
        table.rules = ((event, fires),)


def _add_rights(draw: random.Random, table: Table) -> None:
    if draw.random() < 0.6:
        return
    table.granted = True
    names = ", ".join(table.types)
    table.ddl += [
        "GRANT USAGE ON SCHEMA ~S~ TO ~R~",
        f"GRANT SELECT ({names}), INSERT ({names}), UPDATE ({names}) ON ~S~.t TO ~R~",
        "GRANT DELETE, TRUNCATE ON ~S~.t TO ~R~",
    ]
    if draw.random() < 0.4:
        table.hides = True
        shown, wanted = "USING (v IS DISTINCT FROM 'hidden')", "WITH CHECK (v IS DISTINCT FROM 'x')"
        if draw.random() < 0.5:
            table.ddl.append(f"CREATE POLICY shown ON ~S~.t {shown} {wanted}")
        else:
            table.ddl += [
                f"CREATE POLICY shown ON ~S~.t FOR SELECT {shown}",
                f"CREATE POLICY put ON ~S~.t FOR INSERT {wanted}",
                f"CREATE POLICY set ON ~S~.t FOR UPDATE {shown} {wanted}",
                f"CREATE POLICY gone ON ~S~.t FOR DELETE {shown}",
                f"CREATE POLICY narrow ON ~S~.t AS RESTRICTIVE {shown} WITH CHECK (true)",
            ]
        table.ddl += [
            "ALTER TABLE ~S~.t ENABLE ROW LEVEL SECURITY",
            "INSERT INTO ~S~.t (k, l, v) OVERRIDING SYSTEM VALUE VALUES (3, 'a', 'hidden')",
        ]


@dataclass(frozen=True)
class Feed:
    """One load.

    Attributes:
        few: so many rows are few: of more of them the merges begin otherwise.
        savepoints: with more of them bad rows are sought before good ones go in.
    """

    columns: tuple[str, ...]
    rows: list[Row]
    mode: str
    writer: str
    on_error: str
    on_duplicate: str
    newest_by: str | None
    no_block: bool
    batch_size: int
    few: int
    savepoints: int

    @property
    def by_key(self) -> bool:
        """Whether rows are told apart by a key."""
        return self.mode in {"ignore", "upsert", "sync"}


def random_feed(draw: random.Random, table: Table) -> Feed:
    """A load into this table."""
    needed = {*table.key, *(table.required if not table.before else ()), *(["live"] if table.condition else [])}
    optional = [name for name in table.types if name not in needed and draw.random() < 0.7]
    columns = tuple(name for name in table.types if name in {*needed, *optional})
    modes = ["append", "ignore", "upsert", "upsert", "upsert"]
    if not table.hides:
        modes += ["replace"] + ([] if table.condition else ["sync", "sync"])
    mode = draw.choice(modes)
    count = draw.randint(0, draw.choice([8, 8, 20]))
    rows = [{name: draw.choice(table.columns[name]) for name in columns} for _ in range(count)]
    if draw.random() < 0.2 and rows:
        draw.choice(rows)["k"] = draw.choice(BAD_KEYS)
    newest = "at" if mode == "upsert" and "at" in columns and draw.random() < 0.4 else None
    # Else nearly all fail; and which of two rows comes too late depends on which of them waits for others.
    if mode in {"append", "replace"} and (table.refers or draw.random() < 0.7):
        rows = list({tuple(row[name] for name in table.key): row for row in rows}.values())
    return Feed(
        columns, rows, mode, draw.choice(["values", "copy"]), draw.choice(["abort", "reject"]),
        draw.choice(["last", "first"]), newest, draw.random() < 0.5,
        draw.choice([1, 3, 1000]), draw.choice([2, 2000]), draw.choice([1, 1000]),
    )  # fmt: skip
