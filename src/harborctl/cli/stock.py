"""`harborctl stock`: Harbor's stock by hand, by cron and by other programs."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harborctl.cli import stock_expire
from harborctl.cli.help import Group
from harborctl.cli.invocation import Invocation, command
from harborctl.cli.notify_options import MetricsOption, PingOption
from harborctl.errors import ExitCode, UsageError
from harborctl.model import ErrorInfo, SourceFormat
from harborctl.plain_text import as_json, said

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harborctl.jobs.notify import Outcome
    from harborctl.stock.orders import OrderResult, Reservation

EXAMPLES = {
    "reserve": """
[bold]Examples[/bold]

  harborctl stock reserve MUG-WHITE --qty 2 --order HB-2026-0417

  harborctl stock reserve 1001 --order HB-2026-0418 --minutes 30 --json

  harborctl stock reserve --from orders.csv > reserved.jsonl

  shop-orders | harborctl stock reserve --from - --format jsonl --jobs 4
""",
    "release": """
[bold]Example[/bold]

  harborctl stock release HB-2026-0417
""",
    "confirm": """
[bold]Example[/bold]

  harborctl stock confirm HB-2026-0417 --json
""",
    "expire": stock_expire.EXAMPLES,
    "archive": """
[bold]Examples[/bold]

  harborctl stock archive ROP-TRI

  harborctl stock archive ROP-TRI --release --delete
""",
    "show": """
[bold]Examples[/bold]

  harborctl stock show

  harborctl stock show MUG-WHITE

  harborctl stock show HB-2026-0417 --json
""",
    "list": """
[bold]Examples[/bold]

  harborctl stock list --active

  harborctl stock list --expired --limit 1000 --csv > over.csv
""",
}

WIDE = 1000
# Of an order in a table: what a person looks for first.
COLUMNS = ("order", "sku", "quantity", "state", "expires_at", "created_at", "id", "variant_id")

OrderArgument = Annotated[str, typer.Argument(metavar="ORDER", help="The order's name.", show_default=False)]
CsvOption = Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")]


def register(app: typer.Typer) -> None:
    """Add the group `stock` to the application."""
    group = typer.Typer(
        name="stock",
        cls=Group,
        help="Reserve, release, confirm, expire and archive stock, and never sell a piece twice.",
        no_args_is_help=True,
    )
    for name, function in (
        ("reserve", reserve),
        ("release", release),
        ("confirm", confirm),
        ("expire", stock_expire.expire),
        ("archive", archive),
        ("show", show),
        ("list", list_),
    ):
        command(group, name, epilog=EXAMPLES[name])(function)
    app.add_typer(group)


def reserve(
    invocation: Invocation,
    *,
    variant: Annotated[
        str | None, typer.Argument(metavar="[VARIANT]", help="The variant's SKU or its id.", show_default=False)
    ] = None,
    order: Annotated[str | None, typer.Option("--order", metavar="ID", help="The order's name.")] = None,
    qty: Annotated[int | None, typer.Option("--qty", metavar="N", help="Pieces. \\[default: 1]")] = None,
    minutes: Annotated[
        int,
        typer.Option("--minutes", metavar="N", min=1, max=525_600, help="How long the reservation holds."),
    ] = 15,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Orders in CSV or JSON Lines with order, sku and qty; - is stdin. Each order all or nothing.",
        ),
    ] = None,
    source_format: Annotated[
        SourceFormat | None, typer.Option("--format", help="Of --from. \\[default: by the file's suffix]")
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", metavar="N", min=1, help="Orders of --from in one transaction.")
    ] = 100,
    jobs: Annotated[int, typer.Option("--jobs", "-j", metavar="N", min=1, help="Transactions of --from at once.")] = 1,
    metrics_file: MetricsOption = None,
    ping: PingOption = None,
) -> None:
    """Take pieces off the stock for an order, until it is confirmed, released or its time is over.

    The same order again is answered with the same reservation. With --from the results are JSON Lines, one an order;
    the exit code is 4 if some orders were refused, and 1 if all were.
    """
    from harborctl.jobs.notify import Watchers, told

    if source is not None:
        if variant is not None or order is not None or qty is not None:
            raise UsageError("--from says which orders: leave VARIANT, --order and --qty out")
        with told(Watchers(ping, metrics_file), "stock reserve", invocation.note) as outcome:
            _reserve_from(invocation, outcome, (source, source_format), minutes, batch, jobs)
        if outcome.code is not ExitCode.OK:
            raise typer.Exit(outcome.code)
        return
    if metrics_file or ping:
        raise UsageError("--metrics-file and --ping are for --from")
    if variant is None or order is None:
        raise UsageError(
            "which variant, and for which order?", hint="harborctl stock reserve VARIANT --order ID, or --from FILE."
        )
    from harborctl.db.engine import open_database
    from harborctl.stock.feed import reserve_all
    from harborctl.stock.orders import Line, Order
    from harborctl.stock.transaction import check_database

    wanted = [Order(order, (Line(variant, 1 if qty is None else qty),))]
    with open_database(invocation.connection) as database:
        check_database(database.engine, invocation.note)
        [[result]] = reserve_all(database.engine, wanted, minutes, batch=1, jobs=1, warn=invocation.note)
    if result.error:
        raise result.error
    with invocation.telling():
        if invocation.json:
            document = {"status": result.answer, **_result(result), "database": database.url, "error": None}
            invocation.write(as_json(document) + "\n")
        elif not invocation.quiet:
            [held] = result.reservations
            left = ", ".join(f"{count:,} left" for count in (result.left or {}).values())
            invocation.write(f"{_sentence(held, result.answer.replace('_', ' '))}; {left}\n")


def _reserve_from(
    invocation: Invocation,
    outcome: Outcome,
    file: tuple[str, SourceFormat | None],
    minutes: int,
    batch: int,
    jobs: int,
) -> None:
    from harborctl.db import pool
    from harborctl.db.engine import open_database
    from harborctl.stock.feed import reserve_all
    from harborctl.stock.order_file import read_orders
    from harborctl.stock.orders import Answer
    from harborctl.stock.transaction import check_database

    orders = read_orders(*file)
    answers = dict.fromkeys(Answer, 0)
    with open_database(invocation.connection) as database:
        try:
            check_database(database.engine, invocation.note)
            for results in reserve_all(database.engine, orders, minutes, batch=batch, jobs=jobs, warn=invocation.note):
                for result in results:
                    answers[result.answer] += 1
                with invocation.telling():
                    invocation.write("".join(f"{as_json(_line(result))}\n" for result in results))
        finally:
            outcome.measures |= {
                f"orders_{answer}": (f"Orders of the last run that were {answer.replace('_', ' ')}.", count)
                for answer, count in answers.items()
            } | pool.measures(database.engine)
    done = ", ".join(f"{count:,} {answer.replace('_', ' ')}" for answer, count in answers.items() if count)
    invocation.note(f"{len(orders):,} orders: {done or 'nothing to do'}")
    if refused := answers[Answer.REFUSED]:
        outcome.code = ExitCode.FAILED if refused == len(orders) else ExitCode.REJECTS


def release(invocation: Invocation, *, order: OrderArgument) -> None:
    """Give back what an order holds: it was cancelled, or its payment failed."""
    from harborctl.stock import settle

    _end(invocation, order, settle.release, "released")


def confirm(invocation: Invocation, *, order: OrderArgument) -> None:
    """An order is paid for: its reservations end, and the stock stays down."""
    from harborctl.stock import settle

    _end(invocation, order, settle.confirm, "confirmed")


def _end(invocation: Invocation, order: str, end: Any, status: str) -> None:
    from harborctl.db.engine import open_database
    from harborctl.stock.transaction import changing_stock, check_database

    with open_database(invocation.connection) as database:
        check_database(database.engine, invocation.note)
        with changing_stock(database.engine) as connection:
            ended = end(connection, order)
    with invocation.telling():
        if invocation.json:
            document = {"status": status, "order": order, "reservations": [_reservation(each) for each in ended]}
            invocation.write(as_json({**document, "database": database.url, "error": None}) + "\n")
        elif not invocation.quiet:
            invocation.write("".join(f"{_sentence(each, status)}\n" for each in ended))


def archive(
    invocation: Invocation,
    *,
    product: Annotated[str, typer.Argument(metavar="PRODUCT", help="The product's SKU or its id.", show_default=False)],
    release: Annotated[
        bool, typer.Option("--release", help="End the sale, and give back what orders hold of it, before.")
    ] = False,
    delete: Annotated[
        bool,
        typer.Option("--delete", help="Delete it with its variants and their ended reservations; movements stay."),
    ] = False,
) -> None:
    """End a product: it and its variants stay with active = false, or are deleted by --delete.

    It is refused while active reservations hold some of it, unless --release gives them back.
    """
    from harborctl.db.engine import open_database
    from harborctl.stock.archive import archive as end_product
    from harborctl.stock.transaction import check_database, tried_again

    with open_database(invocation.connection) as database:
        check_database(database.engine, invocation.note)
        done = tried_again(
            lambda: end_product(database.engine, product, release=release, delete=delete), invocation.note
        )
    status = "deleted" if done.deleted else "archived"
    with invocation.telling():
        if invocation.json:
            document = {"status": status, **asdict(done), "released": [_reservation(each) for each in done.released]}
            invocation.write(as_json({**document, "database": database.url, "error": None}) + "\n")
        elif not invocation.quiet:
            also = f" and {done.forgotten:,} ended reservations" if done.forgotten else ""
            lines = [_sentence(each, "released") for each in done.released]
            lines.append(said(f"{status} {done.sku} with {done.variants:,} variants{also}"))
            invocation.write("".join(f"{line}\n" for line in lines))


def show(
    invocation: Invocation,
    *,
    name: Annotated[
        str | None, typer.Argument(metavar="[VARIANT|ORDER]", help="A SKU, a variant's id, or an order.")
    ] = None,
    as_csv: CsvOption = False,
) -> None:
    """Show the stock of a variant and who holds it, or what an order has reserved; without a name, the totals."""
    from harborctl.db.engine import open_database
    from harborctl.stock import look
    from harborctl.stock.orders import Reservation
    from harborctl.stock.transaction import check_database

    _check_form(invocation, as_csv)
    with open_database(invocation.connection) as database:
        check_database(database.engine, invocation.note)
        with database.engine.connect() as connection:
            if name is None:
                totals = asdict(look.totals(connection))
                variant, held = None, list[Reservation]()
            else:
                variant, held = look.show(connection, name)
    if name is None:
        _write_rows(invocation, [totals], totals, as_csv, document=totals)
        return
    stock = asdict(variant) if variant else None
    if stock and not (invocation.json or as_csv):
        _write_rows(invocation, [stock], stock, as_csv, document=None)
        if not held:
            return
    document = {"variant": stock, "reservations": [_reservation(each) for each in held]}
    _write_rows(invocation, [_cells(each) for each in held], COLUMNS, as_csv, document=document)


def list_(
    invocation: Invocation,
    *,
    active: Annotated[bool, typer.Option("--active", help="Only those that hold stock.")] = False,
    expired: Annotated[bool, typer.Option("--expired", help="Only those whose time is over.")] = False,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="Not more than N.")] = 100,
    as_csv: CsvOption = False,
) -> None:
    """List reservations: the newest first, or of --active and --expired those that run out first.

    One that is `overdue` holds its pieces until `harborctl stock expire` gives them back.
    """
    from harborctl.db.engine import open_database
    from harborctl.stock import look
    from harborctl.stock.transaction import check_database

    _check_form(invocation, as_csv)
    if active and expired:
        raise UsageError("--active and --expired exclude each other", hint="Leave both out to list all.")
    which = look.Which.ACTIVE if active else look.Which.EXPIRED if expired else look.Which.ALL
    with open_database(invocation.connection) as database:
        check_database(database.engine, invocation.note)
        with database.engine.connect() as connection:
            held = look.list_reservations(connection, which, limit)
    documents = [_reservation(each) for each in held]
    _write_rows(invocation, [_cells(each) for each in held], COLUMNS, as_csv, document=documents)


def _check_form(invocation: Invocation, as_csv: bool) -> None:
    if as_csv and invocation.json:
        raise UsageError("--json and --csv exclude each other")


def _reservation(held: Reservation) -> dict[str, Any]:
    moments = {"expires_at": held.expires_at.isoformat(), "created_at": held.created_at.isoformat()}
    return {**asdict(held), **moments}


def _cells(held: Reservation) -> dict[str, Any]:
    """As tables have it: times in the reader's zone, and `overdue` for a state."""
    moments = {name: f"{getattr(held, name).astimezone():%Y-%m-%d %H:%M:%S%z}" for name in ("expires_at", "created_at")}
    return {**asdict(held), "state": "overdue" if held.overdue else held.state.value, **moments}


def _result(result: OrderResult) -> dict[str, Any]:
    return {
        "order": result.order,
        "reservations": [_reservation(each) for each in result.reservations],
        "left": result.left or {},
    }


def _line(result: OrderResult) -> dict[str, Any]:
    error = asdict(ErrorInfo.of(result.error)) if result.error else None
    return {"status": result.answer, **_result(result), "error": error}


def _sentence(held: Reservation, status: str) -> str:
    until = f" until {held.expires_at.astimezone():%Y-%m-%d %H:%M:%S%z}" if status.endswith("reserved") else ""
    return said(f"{status} {held.quantity:,} of {held.sku} for {held.order}{until}")


def _write_rows(
    invocation: Invocation, rows: Sequence[dict[str, Any]], columns: Any, as_csv: bool, *, document: Any
) -> None:
    names = list(columns)
    if invocation.json:
        invocation.write(as_json(document) + "\n")
    elif as_csv:
        text = io.StringIO()
        writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        invocation.write(text.getvalue())
    else:
        _write_table(invocation, rows, names)


def _write_table(invocation: Invocation, rows: Sequence[dict[str, Any]], names: list[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for name in names:
        numbers = bool(rows) and isinstance(rows[0][name], int) and not isinstance(rows[0][name], bool)
        table.add_column(name, justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(Text(_shown(row[name])) for name in names))
    if not invocation.out.is_terminal:
        invocation.out.width = WIDE  # whoever filters wants a row in one line
    with invocation.out.capture() as rendered:
        invocation.out.print(table)
    invocation.write(rendered.get())


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return said(str(value))
