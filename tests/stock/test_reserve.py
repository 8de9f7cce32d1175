"""Reserve: pieces go off the stock once for each order, or not at all."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.conftest import Harborctl, Run, execute
from tests.inprocess import Invoke
from tests.stock.conftest import Refused, Stock, disagreeing, everything, failure, free, movements, pass_time


def results(done: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_pieces_go_off_the_stock(shop: Engine, stock: Stock) -> None:
    document = stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1")
    [held] = document["reservations"]
    assert (document["status"], document["order"], document["left"], document["error"]) == (
        "reserved",
        "A-1",
        {"MUG-W": 97},
        None,
    )
    assert document["database"].startswith("postgresql://")
    assert (held["order"], held["sku"], held["variant_id"], held["quantity"], held["state"], held["overdue"]) == (
        "A-1",
        "MUG-W",
        1,
        3,
        "active",
        False,
    )
    lasts = datetime.fromisoformat(held["expires_at"]) - datetime.fromisoformat(held["created_at"])
    assert lasts == timedelta(minutes=15)
    assert free(shop)["MUG-W"] == 97
    assert movements(shop) == [(1, "A-1", -3, "reserved")]
    with shop.connect() as connection:
        at, by = connection.execute(text('SELECT at, "by" FROM harbor.stock_movements ORDER BY id DESC LIMIT 1')).one()
        assert by == connection.scalar(text("SELECT session_user"))
        assert at == datetime.fromisoformat(held["created_at"])


def test_people_get_a_sentence(shop: Engine, invoke: Invoke) -> None:
    done = invoke("stock", "reserve", "2", "--order", "A-1", "--minutes", "90")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.startswith("reserved 1 of MUG-B for A-1 until 20")
    assert done.stdout.endswith("; 9 left\n")
    done = invoke("stock", "reserve", "2", "--order", "A-1", "--minutes", "90")
    assert done.stdout.startswith("already reserved 1 of MUG-B for A-1 until 20")
    assert invoke("stock", "reserve", "2", "--order", "A-2", "--quiet").stdout == ""


def test_the_same_order_again_is_the_same_reservation(shop: Engine, stock: Stock) -> None:
    first = stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1")
    before = everything(shop)
    again = stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1", "--minutes", "99")
    assert (again["status"], again["reservations"], again["left"]) == (
        "already_reserved",
        first["reservations"],
        first["left"],
    )
    stock("reserve", "1", "--qty", "3", "--order", "A-1")
    assert everything(shop) == before
    # A message that comes late, after the order was paid for, sells nothing again.
    stock("confirm", "A-1")
    before = everything(shop)
    late = stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1")
    assert (late["status"], late["reservations"][0]["state"]) == ("already_reserved", "fulfilled")
    assert everything(shop) == before


def test_another_quantity_is_refused(stock: Stock, refused: Refused) -> None:
    stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1")
    error = refused("reserve", "MUG-W", "--qty", "4", "--order", "A-1")
    assert (error["code"], error["message"]) == ("other_quantity", "order A-1 holds 3 of MUG-W, and 4 are asked for")
    stock("confirm", "A-1")
    error = refused("reserve", "MUG-W", "--qty", "2", "--order", "A-1")
    assert error["message"] == "order A-1 has bought 3 of MUG-W, and 2 are asked for"


def test_what_ended_may_be_reserved_again(shop: Engine, stock: Stock) -> None:
    stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1")
    stock("release", "A-1")
    document = stock("reserve", "MUG-W", "--qty", "4", "--order", "A-1")
    assert (document["status"], free(shop)["MUG-W"]) == ("reserved", 96)


def test_a_reservation_whose_time_is_over_is_made_anew(shop: Engine, stock: Stock) -> None:
    """Also with the last pieces: those that it holds are its own."""
    stock("reserve", "TEE-R", "--qty", "5", "--order", "A-1")
    pass_time(shop)
    document = stock("reserve", "TEE-R", "--qty", "4", "--order", "A-1")
    assert (document["status"], document["left"], free(shop)["TEE-R"]) == ("reserved", {"TEE-R": 1}, 1)
    assert movements(shop) == [
        (3, "A-1", -5, "reserved"),
        (3, "A-1", 5, "expired"),
        (3, "A-1", -4, "reserved"),
    ]
    states = [each["state"] for each in stock("show", "A-1")["reservations"]]
    assert states == ["expired", "active"]
    assert disagreeing(shop) == []


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("MUG-X", "--order", "A"), "unknown_variant", "there is no variant MUG-X"),
        (("99", "--order", "A"), "unknown_variant", "there is no variant 99"),
        (("9" * 30, "--order", "A"), "unknown_variant", f"there is no variant {'9' * 30}"),
        (("TEE-R", "--qty", "6", "--order", "A"), "out_of_stock", "order A wants 6 of TEE-R, and 5 are left"),
        (("TEE-G", "--order", "A"), "out_of_stock", "order A wants 1 of TEE-G, and none is left"),
        (
            ("MUG-W", "--qty", str(10**12), "--order", "A"),
            "out_of_stock",
            "order A wants 1,000,000,000,000 of MUG-W, and 100 are left",
        ),
        (("MUG-W", "--qty", "0", "--order", "A"), "bad_quantity", "order A wants 0 of MUG-W: a quantity is 1 or more"),
        (
            ("MUG-W", "--qty", "-1", "--order", "A"),
            "bad_quantity",
            "order A wants -1 of MUG-W: a quantity is 1 or more",
        ),
        (("MUG-W", "--order", ""), "no_order", "an order has no name"),
    ],
)
def test_what_is_refused(refused: Refused, arguments: tuple[str, ...], code: str, message: str) -> None:
    error = refused("reserve", *arguments)
    assert (error["code"], error["message"]) == (code, message)


def test_overdue_pieces_are_hinted_at(shop: Engine, stock: Stock, refused: Refused) -> None:
    stock("reserve", "TEE-R", "--qty", "5", "--order", "A-1")
    assert refused("reserve", "TEE-R", "--order", "A-2")["hint"] is None
    pass_time(shop)
    error = refused("reserve", "TEE-R", "--order", "A-2")
    assert error["hint"].startswith("5 more are held by reservations whose time is over: `harborctl stock expire`")


@pytest.mark.parametrize("table", ["variants", "products"])
def test_what_is_no_longer_sold(engine: Engine, refused: Refused, table: str) -> None:
    execute(engine, f"UPDATE harbor.{table} SET active = false WHERE sku LIKE 'MUG%'")
    assert refused("reserve", "MUG-W", "--order", "A-1")["code"] == "not_sold"


@pytest.mark.parametrize(
    "arguments",
    [
        ("reserve",),
        ("reserve", "MUG-W"),
        ("reserve", "--order", "A"),
        ("reserve", "MUG-W", "--from", "a.csv"),
        ("reserve", "--order", "A", "--from", "a.csv"),
        ("reserve", "MUG-W", "--order", "A", "--minutes", "0"),
        ("reserve", "--from", "missing.csv"),
    ],
)
def test_usage(refused: Refused, arguments: tuple[str, ...]) -> None:
    refused(*arguments, code=2)


def test_a_sku_that_looks_like_an_id_goes_first(engine: Engine, shop: Engine, stock: Stock) -> None:
    execute(engine, "UPDATE harbor.variants SET sku = '1' WHERE id = 2")
    assert stock("reserve", "1", "--order", "A")["reservations"][0]["variant_id"] == 2
    assert stock("reserve", "01", "--order", "B")["reservations"][0]["variant_id"] == 1


def test_the_catalog_s_time_stays(engine: Engine, stock: Stock) -> None:
    """By it a feed tells what is newer: a reservation must not make tonight's prices old."""
    query = text("SELECT updated_at FROM harbor.variants WHERE id = 1")
    with engine.connect() as connection:
        before = connection.scalar(query)
    stock("reserve", "MUG-W", "--order", "A")
    with engine.connect() as connection:
        assert connection.scalar(query) == before


# ---- --from ----

LINES = [
    ("A", "MUG-W", 2),
    ("B", "MUG-B", 6),
    ("A", "TEE-R", 1),
    ("C", "MUG-B", 5),
    ("C", "MUG-W", 1),
    ("D", "MUG-B", 4),
]


def write(path: Path, lines: list[tuple[Any, ...]]) -> str:
    if path.suffix == ".csv":
        path.write_text("order,sku,qty\n" + "".join(f"{a},{b},{c}\n" for a, b, c in lines))
    else:
        path.write_text("".join(json.dumps({"qty": c, "order": a, "sku": b}) + "\n" for a, b, c in lines))
    return str(path)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("batch", ["1", "2", "100"])
def test_each_order_all_or_nothing(shop: Engine, invoke: Invoke, tmp_path: Path, suffix: str, batch: str) -> None:
    file = write(tmp_path / f"orders{suffix}", LINES)
    done = invoke("stock", "reserve", "--from", file, "--batch", batch)
    assert (done.code, done.stderr) == (4, "4 orders: 3 reserved, 1 refused\n")
    found = results(done)
    assert [(each["order"], each["status"]) for each in found] == [
        ("A", "reserved"),
        ("B", "reserved"),
        ("C", "refused"),
        ("D", "reserved"),
    ]
    assert {each["sku"]: each["quantity"] for each in found[0]["reservations"]} == {"MUG-W": 2, "TEE-R": 1}
    assert found[0]["left"] == {"MUG-W": 98, "TEE-R": 4}
    assert found[2]["reservations"] == []
    assert found[2]["left"] == {"MUG-B": 4, "MUG-W": 98}
    error = found[2]["error"]
    assert (error["code"], error["message"]) == ("out_of_stock", "order C wants 5 of MUG-B, and 4 are left")
    assert (error["file"], error["line"], error["value"]) == (file, 5 if suffix == ".csv" else 4, "5")
    assert free(shop) == {"MUG-W": 98, "MUG-B": 0, "TEE-R": 4, "TEE-G": 0}
    assert disagreeing(shop) == []
    before = everything(shop)
    again = invoke("stock", "reserve", "--from", file, "--batch", batch, "--quiet")
    assert (again.code, again.stderr) == (4, "")
    assert [each["status"] for each in results(again)] == [
        "already_reserved",
        "already_reserved",
        "refused",
        "already_reserved",
    ]
    assert [each["reservations"] for each in results(again)] == [each["reservations"] for each in found]
    assert everything(shop) == before


def test_all_refused_is_a_failure(shop: Engine, invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("stock", "reserve", "--from", write(tmp_path / "o.csv", [("A", "TEE-G", 1)]))
    assert (done.code, done.stderr) == (1, "1 orders: 1 refused\n")


def test_bad_lines_are_faults_of_their_orders(shop: Engine, invoke: Invoke, tmp_path: Path) -> None:
    lines = [
        ("A", "MUG-W", "many"),
        ("B", "", 1),
        ("", "MUG-W", 1),
        ("C", "MUG-W", 1),
        ("D", "MUG-W", 1),
        ("D", "1", 1),
        ("E", "MUG-W", 0),
        ("F", "MUG-W", 1),
        ("F", "MUG-X", 1),
        ("G", "MUG-W", "1.0"),
        ("H", "MUG-W", str(10**18)),
        ("I", "MUG-W", str(2**40)),
    ]
    done = invoke("stock", "reserve", "--from", write(tmp_path / "o.csv", lines))
    assert done.code == 4
    told = {each["order"]: each["error"] and (each["error"]["code"], each["error"]["line"]) for each in results(done)}
    assert told == {
        "A": ("bad_quantity", 2),
        "B": ("missing_value", 3),
        "": ("missing_value", 4),
        "C": None,
        "D": ("variant_twice", 6),
        "E": ("bad_quantity", 8),
        "F": ("unknown_variant", 10),
        "G": ("bad_quantity", 11),
        "H": ("bad_quantity", 12),
        "I": ("out_of_stock", 13),
    }
    assert free(shop)["MUG-W"] == 99


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("o.csv", "order,sku\nA,MUG-W\n", 2),
        ("o.csv", "order,sku,qty,qty\nA,MUG-W,1,1\n", 2),
        ("o.csv", "order,sku,qty\nA,MUG-W,1\nB,MUG-W\n", 1),
        ("o.jsonl", '{"order": "A", "sku": "MUG-W", "qty": 1}\nnonsense\n', 1),
        ("o.parquet", "PAR1", 2),
    ],
)
def test_a_broken_file_reserves_nothing(
    shop: Engine, invoke: Invoke, tmp_path: Path, name: str, content: str, code: int
) -> None:
    (tmp_path / name).write_text(content)
    before = everything(shop)
    done = invoke("stock", "reserve", "--from", name, "--json")
    failure(done, code)
    assert everything(shop) == before


def test_from_stdin_and_by_several_connections(shop: Engine, harborctl: Harborctl) -> None:
    orders = "".join(json.dumps({"order": f"O-{number}", "sku": "MUG-W", "qty": 1}) + "\n" for number in range(120))
    done = harborctl(
        "stock", "reserve", "--from", "-", "--format", "jsonl", "--jobs", "3", "--batch", "7", stdin=orders
    )
    assert (done.code, done.stderr) == (4, "120 orders: 100 reserved, 20 refused\n")
    assert [each["order"] for each in results(done)] == [f"O-{number}" for number in range(120)]
    assert free(shop)["MUG-W"] == 0
    assert disagreeing(shop) == []


def test_no_orders(shop: Engine, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text("order,sku,qty\n")
    (tmp_path / "o.jsonl").write_text("")
    for name in ("o.csv", "o.jsonl"):
        assert invoke("stock", "reserve", "--from", name) == Run(0, "", "0 orders: nothing to do\n")


# ---- release, confirm, show, list ----


def test_release(shop: Engine, stock: Stock, refused: Refused) -> None:
    stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1")
    stock("reserve", "MUG-B", "--qty", "2", "--order", "A-1")
    document = stock("release", "A-1")
    assert (document["status"], [each["state"] for each in document["reservations"]]) == ("released", ["released"] * 2)
    assert free(shop) == {"MUG-W": 100, "MUG-B": 10, "TEE-R": 5, "TEE-G": 0}
    assert movements(shop)[-2:] == [(1, "A-1", 3, "released"), (2, "A-1", 2, "released")]
    error = refused("release", "A-1")
    assert error["code"] == "already_released"
    assert error["message"].startswith("order A-1 cannot be released: it was released at 20")
    assert refused("confirm", "A-1")["code"] == "already_released"


def test_confirm(shop: Engine, stock: Stock, refused: Refused) -> None:
    stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1")
    document = stock("confirm", "A-1")
    assert (document["status"], document["reservations"][0]["state"]) == ("confirmed", "fulfilled")
    assert free(shop)["MUG-W"] == 97
    assert disagreeing(shop) == []
    assert refused("confirm", "A-1")["code"] == "already_confirmed"
    error = refused("release", "A-1")
    assert error["message"].startswith("order A-1 cannot be released: it was confirmed at 20")
    assert error["hint"] == "`harborctl stock show A-1` tells what became of it."


def test_what_is_over_cannot_be_confirmed(shop: Engine, stock: Stock, refused: Refused) -> None:
    stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1")
    pass_time(shop)
    stock("reserve", "MUG-B", "--order", "A-1")
    assert refused("confirm", "A-1")["code"] == "overdue"
    assert {each["state"] for each in stock("release", "A-1")["reservations"]} == {"released"}
    assert free(shop)["MUG-W"] == 100


@pytest.mark.parametrize("command", ["release", "confirm"])
def test_no_such_order(refused: Refused, command: str) -> None:
    error = refused(command, "A-9")
    assert (error["code"], error["message"]) == ("unknown_order", "there is no order A-9")


def test_show(shop: Engine, stock: Stock, invoke: Invoke, refused: Refused) -> None:
    stock("reserve", "MUG-W", "--qty", "3", "--order", "A-1")
    stock("reserve", "MUG-B", "--qty", "1", "--order", "A-1")
    pass_time(shop)
    stock("reserve", "MUG-W", "--qty", "2", "--order", "A-2")
    stock("reserve", "MUG-W", "--qty", "1", "--order", "A-3")
    stock("confirm", "A-3")
    for name in ("MUG-W", "1"):
        document = stock("show", name)
        assert document["variant"] == {
            "variant_id": 1,
            "sku": "MUG-W",
            "product": "Mug",
            "active": True,
            "free": 94,
            "held": 5,
            "overdue": 3,
        }
        assert [(each["order"], each["overdue"]) for each in document["reservations"]] == [
            ("A-1", True),
            ("A-2", False),
        ]
    document = stock("show", "A-1")
    assert document["variant"] is None
    assert [each["sku"] for each in document["reservations"]] == ["MUG-W", "MUG-B"]
    assert [each["state"] for each in stock("show", "A-3")["reservations"]] == ["fulfilled"]
    assert stock("show", "TEE-G")["reservations"] == []
    assert stock("show") == {"variants": 4, "free": 108, "reservations": 3, "held": 6, "overdue": 4}
    assert refused("show", "MUG-X")["code"] == "unknown"
    shown = invoke("stock", "show", "MUG-W").stdout
    assert "│ MUG-W │" in shown
    assert "│ A-2" in shown
    assert "overdue" in shown
    [row] = csv.DictReader(io.StringIO(invoke("stock", "show", "A-3", "--csv").stdout))
    assert (row["order"], row["sku"], row["state"]) == ("A-3", "MUG-W", "fulfilled")


def test_list(shop: Engine, stock: Stock, invoke: Invoke) -> None:
    for number in range(3):
        stock("reserve", "MUG-W", "--order", f"A-{number}", "--minutes", str(30 - number))
    pass_time(shop)
    for number in range(3, 6):
        stock("reserve", "MUG-W", "--order", f"A-{number}", "--minutes", str(30 - number))
    stock("confirm", "A-5")

    def listed(*options: str) -> list[str]:
        done = invoke("stock", "list", *options, "--json")
        assert (done.code, done.stderr) == (0, "")
        return [each["order"] for each in json.loads(done.stdout)]

    assert listed() == ["A-5", "A-4", "A-3", "A-2", "A-1", "A-0"]
    assert listed("--limit", "2") == ["A-5", "A-4"]
    assert listed("--active") == ["A-2", "A-1", "A-0", "A-4", "A-3"]
    assert listed("--expired") == ["A-2", "A-1", "A-0"]
    found = list(csv.DictReader(io.StringIO(invoke("stock", "list", "--active", "--csv").stdout)))
    assert [row["state"] for row in found] == ["overdue"] * 3 + ["active"] * 2
    assert invoke("stock", "list", "--expired").stdout.count("overdue") == 3
    for wrong in (("--active", "--expired"), ("--csv", "--json")):
        assert invoke("stock", "list", *wrong).code == 2


def test_one_query_a_listing(shop: Engine, stock: Stock, invoke: Invoke, caplog: pytest.LogCaptureFixture) -> None:
    """However many rows there are, and none of them asked for one by one."""

    def statements(*arguments: str) -> int:
        caplog.clear()
        assert invoke("stock", *arguments, "--json", "--log-slow", "0").code == 0
        return sum("harbor.variants" in line for line in caplog.messages)

    for number in range(5):
        stock("reserve", "MUG-W", "--order", f"A-{number}")
        for arguments in (("show",), ("show", "MUG-W"), ("show", "A-0"), ("list",), ("list", "--active")):
            assert statements(*arguments) == 1
