"""docs/stock.md: its files are written, its commands are run, and what it says of them is so."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

from sqlalchemy import Engine

from tests.conftest import Run, ours
from tests.inprocess import Invoke
from tests.stock.conftest import disagreeing, free, pass_time

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "stock.md").read_text(encoding="utf-8")
FROM = "stock reserve --from orders.csv --metrics-file reserve.prom"


def write_files(folder: Path) -> None:
    """The files of the page: each is named before its block."""
    for name, kind in (("orders.csv", "csv"), ("counts.csv", "csv"), ("harborctl.toml", "toml")):
        block = re.search(rf"`{name}`.*?```{kind}\n(.*?)```", PAGE, re.DOTALL)
        assert block, name
        (folder / name).write_text(block[1])
    shutil.copytree(ROOT / "samples", folder / "samples")


def test_the_page(engine: Engine, invoke: Invoke, tmp_path: Path) -> None:
    write_files(tmp_path)
    commands = [
        line.removeprefix("harborctl ")
        for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    done: dict[str, Run] = {}
    stock: dict[str, dict[str, int]] = {}
    for command in commands:
        if command.startswith("stock expire"):
            pass_time(ours(engine))
        done[command] = invoke(*shlex.split(command))
        stock[command] = free(engine)
        assert disagreeing(engine) == [], command
    found = {command: run.code for command, run in done.items() if run.code}
    assert found == {FROM: 4}, done
    assert len(commands) == len(done) >= 15

    def after(command: str) -> tuple[int, int]:
        now = next(counts for name, counts in stock.items() if name.startswith(command))
        return now["ROP-TRI-WHI-01"], now["ROP-TRI-WHI-02"]

    assert after("load samples/variants") == (2, 24)
    assert after("stock release") == (2, 22)
    # A-1003 takes one of each, A-1004 the last of the first.
    results = [json.loads(line) for line in done[FROM].stdout.splitlines()]
    assert [each["status"] for each in results] == ["reserved", "reserved", "refused"]
    assert after("load samples/nightly") == after("stock reserve --from") == (0, 21)
    # Since the count of 1 two were taken of the first: one too many. Of the second 3 were.
    assert after("run nightly") == (0, 27)
    [short] = csv.DictReader((tmp_path / "oversold.csv").read_text().splitlines())
    told = (short["sku"], short["counted_qty"], short["taken_since"], short["oversold"])
    assert told == ("ROP-TRI-WHI-01", "1", "2", "1")
    assert done["stock expire --metrics-file expire.prom"].stdout == "expired 3 reservations, of 3 pieces\n"
    assert after("stock expire") == (2, 28)
    assert 'harborctl_expired_pieces{job="stock expire"} 3.0' in (tmp_path / "expire.prom").read_text()
    assert done["stock archive ROP-TRI --release"].stdout.startswith("archived ROP-TRI with ")
