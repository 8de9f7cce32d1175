"""The tables that harborctl brings along, declared once: its ledger, and Harbor's shop.

`ledger` and `harbor` are the truth that the migrations are compared with. Nothing here talks to a database, and
nothing creates these tables but the migrations.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

LEDGER_SCHEMA = "harborctl"
HARBOR_SCHEMA = "harbor"

# Every constraint has a name that can be foreseen, so that a migration can drop it and a message can cite it.
_NAMES = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
}

ledger = MetaData(schema=LEDGER_SCHEMA, naming_convention=_NAMES)
harbor = MetaData(schema=HARBOR_SCHEMA, naming_convention=_NAMES)


def _timestamp(name: str, *, nullable: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _now(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=func.now())


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default=text("0"))


# One row for each load that was begun. What a failed load was about is kept as far as it was known.
loads = Table(
    "loads",
    ledger,
    Column("id", Uuid(as_uuid=False), primary_key=True),
    # The target as the database spells it; without a schema when no such table was found.
    Column("target_schema", Text),
    Column("target_table", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("writer", Text, nullable=False),
    Column("status", Text, nullable=False),
    _count("rows_read"),
    _count("inserted"),
    _count("updated"),
    _count("unchanged"),
    _count("skipped"),
    _count("stale"),
    _count("duplicates"),
    _count("deleted"),
    _count("rejected"),
    Column("reject_file", Text),
    _now("started_at"),
    _timestamp("finished_at", nullable=True),
    Column("seconds", Double),
    # Who ran it, and from where. A run that was killed stays `running`: no backend with its pid and start is left.
    Column("database_user", Text, nullable=False, server_default=text("SESSION_USER")),
    Column("host", Text),
    Column("backend_pid", Integer),
    _timestamp("backend_start", nullable=True),
    Column("application_version", Text, nullable=False),
    # Two loads with one fingerprint and the same files do the same; `options` spells it out, without any secret.
    Column("fingerprint", Text),
    Column("options", JSONB, nullable=False, server_default=text("'{}'")),
    # The `error` object of the summary: code, message, file, line, column, value, hint.
    Column("error", JSONB(none_as_null=True)),
    Column("metadata", JSONB, nullable=False, server_default=text("'{}'")),
    # Where the rows are, by which a later append knows whether they still are: the target's oid, that of this table
    # (another one after a dump was restored, whose oids say nothing), and the files of the target and its partitions
    # when the load ended. `snapshot` is what the load saw before its first row, and whether the target was empty then;
    # `xid` is the transaction in which it ended.
    Column("target_oid", BigInteger),
    Column("ledger_oid", BigInteger),
    Column("storage", ARRAY(BigInteger)),
    Column("snapshot", Text),
    Column("began_empty", Boolean),
    Column("xid", BigInteger),
    CheckConstraint(
        "status IN ('running', 'loaded', 'loaded_with_rejects', 'already_loaded', 'dry_run', 'locked', 'interrupted',"
        " 'failed')",
        name="status",
    ),
    Index(None, "target_schema", "target_table", "started_at"),
    Index(None, "started_at"),
    Index(None, "target_oid"),
)

# The sources of a load, in load order. What is known only at a file's end is NULL until then.
files = Table(
    "files",
    ledger,
    Column("load_id", Uuid(as_uuid=False), ForeignKey(loads.c.id, ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger),
    Column("rows", BigInteger),
    # Of the content, uncompressed. Where `status` is NULL an older harborctl wrote the row: then of the bytes on disk.
    Column("sha256", Text),
    Column("content_bytes", BigInteger),
    # `loaded`, or `already_loaded`, and by which load.
    Column("status", Text),
    Column("loaded_by", Uuid(as_uuid=False)),
    # What makes rows of the content: format, dialect, mapping, constants; what is as by default is left out.
    Column("meaning", JSONB(none_as_null=True)),
    CheckConstraint("status IN ('loaded', 'already_loaded')", name="status"),
    # A rerun is recognised by content; the size says beforehand whether hashing is worth it.
    Index(None, "sha256"),
    Index(None, "bytes"),
)

# The parts of a load that committed on their own. Rows are counted from 1 over all files of the load.
chunks = Table(
    "chunks",
    ledger,
    Column("load_id", Uuid(as_uuid=False), ForeignKey(loads.c.id, ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("first_row", BigInteger, nullable=False),
    Column("last_row", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("counters", JSONB, nullable=False, server_default=text("'{}'")),
    # now() would be when the chunk's transaction began.
    Column("committed_at", DateTime(timezone=True), nullable=False, server_default=text("clock_timestamp()")),
)

# Bad rows of the parts of a load that is not done yet, each as it stood in its source: a part and its rejects commit
# together, and at the end the reject file is made of them all.
rejects = Table(
    "rejects",
    ledger,
    Column("load_id", Uuid(as_uuid=False), ForeignKey(loads.c.id, ondelete="CASCADE"), primary_key=True),
    # The part by its file, from 0, and where it starts there.
    Column("file", Integer, primary_key=True, autoincrement=False),
    Column("start", BigInteger, primary_key=True, autoincrement=False),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("line", BigInteger, nullable=False),
    # Why, as JSON in ASCII: a value may have a NUL in it, which jsonb cannot.
    Column("reason", Text, nullable=False),
    Column("form", Text, nullable=False),
    Column("original", LargeBinary, nullable=False),
)


def _id() -> Column[int]:
    # Numbering starts at 1001: ids below are left to files that bring their own, such as the samples, so that rows
    # which get theirs from the database never run into them.
    return Column("id", BigInteger, Identity(start=1001), primary_key=True)


def _updated_at() -> Column[object]:
    return Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now(), onupdate=func.now())


products = Table(
    "products",
    harbor,
    _id(),
    Column("sku", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("description", Text),
    Column("category", Text, nullable=False),
    Column("price_cents", Integer, nullable=False),
    Column("active", Boolean, nullable=False, server_default=true()),
    _now("created_at"),
    _updated_at(),
    UniqueConstraint("sku"),
    CheckConstraint("price_cents >= 0", name="price_cents"),
)

variants = Table(
    "variants",
    harbor,
    _id(),
    Column("product_id", BigInteger, ForeignKey(products.c.id, ondelete="CASCADE"), nullable=False),
    Column("sku", Text, nullable=False),
    # A product without colours or sizes has the empty text: NULLs would slip through the natural key.
    Column("color", Text, nullable=False, server_default=text("''")),
    Column("size", Text, nullable=False, server_default=text("''")),
    Column("price_cents", Integer, nullable=False),
    # Free to be sold: what reservations hold has been taken off.
    Column("stock_qty", Integer, nullable=False, server_default=text("0")),
    _now("created_at"),
    # When the catalog changed the row, by which feeds tell what is newer. Changes of stock are in `stock_movements`.
    _updated_at(),
    # False when the variant is no longer sold.
    Column("active", Boolean, nullable=False, server_default=true()),
    UniqueConstraint("sku"),
    # Its index also serves the foreign key.
    UniqueConstraint("product_id", "color", "size"),
    CheckConstraint("price_cents >= 0", name="price_cents"),
    CheckConstraint("stock_qty >= 0", name="stock_qty"),
)

stock_reservations = Table(
    "stock_reservations",
    harbor,
    _id(),
    # RESTRICT: a variant that somebody has reserved does not go away unnoticed.
    Column("variant_id", BigInteger, ForeignKey(variants.c.id, ondelete="RESTRICT"), nullable=False),
    Column("order_ref", Text, nullable=False),
    Column("quantity", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'active'")),
    _timestamp("expires_at"),
    _now("created_at"),
    _updated_at(),
    CheckConstraint("quantity > 0", name="quantity"),
    CheckConstraint("state IN ('active', 'released', 'expired', 'fulfilled')", name="state"),
    # An order holds a variant once; what it held before stays as history.
    Index(
        "uq_stock_reservations_active",
        "variant_id",
        "order_ref",
        unique=True,
        postgresql_where=text("state = 'active'"),
    ),
    Index(None, "variant_id"),
    Index(None, "order_ref"),
    # What has run out, for those that release it.
    Index("ix_stock_reservations_due", "expires_at", postgresql_where=text("state = 'active'")),
)

# Every change of stock, written in the transaction that made it: by the stock commands, or else by the triggers below
# (`opening` is a new row; `changed` and `removed` are what loads and SQL do). There is no foreign key: the history
# outlives the variant.
stock_movements = Table(
    "stock_movements",
    harbor,
    Column("id", BigInteger, Identity(), primary_key=True),
    Column("variant_id", BigInteger, nullable=False),
    Column("order_ref", Text),
    Column("delta", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    _now("at"),
    Column("by", Text, nullable=False, server_default=text("SESSION_USER")),
    CheckConstraint("delta <> 0", name="delta"),
    CheckConstraint(
        "reason IN ('opening', 'reserved', 'released', 'expired', 'counted', 'changed', 'removed')", name="reason"
    ),
    Index(None, "variant_id", "at"),
)

# The triggers on `variants` that write the rest, and the functions that migrations make: Alembic does not compare them.
STOCK_TRIGGERS = ("stock_changed", "stock_opening", "stock_removed")
STOCK_FUNCTIONS = ("apply_stock_counts", "record_stock_movements")

# The last count of each variant as somebody made it, and what `harbor.apply_stock_counts()` made of it.
stock_counts = Table(
    "stock_counts",
    harbor,
    Column("sku", Text, primary_key=True),
    Column("counted_qty", Integer, nullable=False),
    _timestamp("counted_at"),
    _timestamp("applied_at", nullable=True),
    # The count that was applied: a later one, or a corrected one, is applied again.
    Column("applied_qty", Integer),
    _timestamp("applied_counted_at", nullable=True),
    # What reservations have taken since the count, and what the stock became.
    Column("moved", BigInteger),
    Column("stock_qty", Integer),
    # Pieces that reservations have taken and the count says are not there.
    Column("oversold", BigInteger),
    CheckConstraint("counted_qty >= 0", name="counted_qty"),
)
