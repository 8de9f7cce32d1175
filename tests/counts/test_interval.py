"""How often the interval of a sample holds the truth, and how wide it is: simulated, on tables of many shapes.

A table is the list of its pages' rows, and a sample is drawn from it as from a real one; that a real table is read so
is tested in test_counts.py. HARBORCTL_TEST_EXAMPLES=200 draws as many samples of each.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from statistics import median, pvariance

import pytest

from harborctl.counts.interval import interval
from harborctl.counts.sample import DRAWS, END_PAGES, Draws, PageSample, _chosen
from tests.load.sizes import EXAMPLES

PAGES = 10_000
CHANCE = random.Random(1)  # noqa: S311  # a table to be found again


def clustered(clusters: int, length: int, rows: int, fill: int = 0) -> list[int]:
    """Rows that meet a condition lie together."""
    table = [fill] * PAGES
    for _ in range(clusters):
        start = CHANCE.randrange(PAGES - length)
        table[start : start + length] = [rows] * length
    return table


def scattered(share: float, rows: int, fill: int) -> list[int]:
    return [rows if CHANCE.random() < share else fill for _ in range(PAGES)]


# Name: rows of each page, and the most on any page that a sample meets; 0 where only those that it counts tell.
SHAPES = {
    "alike": ([60] * PAGES, 60),
    "filled in bulk": ([60] * (PAGES - 63) + [0] * 63, 60),
    "filled by four": ([60] * (PAGES - 127) + [0, 60, 0] * 42 + [0], 60),
    "uneven rows": ([round(CHANCE.gauss(60, 3)) for _ in range(PAGES)], 72),
    "very uneven rows": ([max(1, round(CHANCE.gauss(60, 25))) for _ in range(PAGES)], 160),
    "half deleted": ([30] * (PAGES // 2) + [60] * (PAGES // 2), 60),
    "first half empty": ([0] * (PAGES // 2) + [60] * (PAGES // 2), 60),
    "deleted here and there": ([CHANCE.randrange(61) for _ in range(PAGES)], 61),
    "1 % empty": (scattered(0.01, 0, 60), 60),
    "10 % empty": (scattered(0.1, 0, 60), 60),
    "5 % full, the others wide": (scattered(0.05, 200, 1), 0),
    "1 % full, the others wide": (scattered(0.01, 200, 1), 0),
    "last tenth full": ([1] * (PAGES * 9 // 10) + [200] * (PAGES // 10), 0),
    "a condition on 1 row in 100": ([sum(CHANCE.random() < 0.01 for _ in range(60)) for _ in range(PAGES)], 60),
    "a condition on 1 row in 5 000": ([sum(CHANCE.random() < 0.0002 for _ in range(60)) for _ in range(PAGES)], 60),
    "a condition on one day of 100": (clustered(1, 100, 60), 60),
    "a condition on many short runs": (clustered(40, 5, 60), 60),
    "a condition on few short runs": (clustered(3, 5, 60), 60),
    "a condition on nothing": ([0] * PAGES, 60),
    "rising": ([page * 120 // PAGES for page in range(PAGES)], 120),
    "waves": ([round(60 + 50 * math.sin(page / 300)) for page in range(PAGES)], 110),
    "long tail": ([min(290, int(CHANCE.paretovariate(1.2))) for _ in range(PAGES)], 0),
}


def sampled(table: list[int], most: int, percent: float, seed: int) -> PageSample:
    """As `read_sample` draws it."""
    middle = len(table) - END_PAGES
    drawn = [table[page] for page in _chosen(middle, percent, random.Random(seed))]  # noqa: S311
    return PageSample(middle, Counter(drawn), most or max(drawn), sum(table[middle:]), END_PAGES)


@pytest.mark.parametrize("percent", [1, 5, 50])
@pytest.mark.parametrize("name", SHAPES)
def test_the_interval_holds_the_truth_and_is_not_needlessly_wide(name: str, percent: float) -> None:
    table, most = SHAPES[name]
    truth = sum(table)
    samples = [sampled(table, most, percent, seed) for seed in range(EXAMPLES)]
    intervals = [interval(sample) for sample in samples]
    covered = sum(low <= truth <= high for _, low, high in intervals) / EXAMPLES
    n, of_pages = sum(samples[0].pages.values()), samples[0].of_pages
    deviation = math.sqrt(pvariance(table[:-END_PAGES]) / n * (1 - n / of_pages)) * of_pages
    # Where all pages that were met are alike, that no other kind of page is rarer than 3.7 in n is all that is known.
    unknown = 1.3 * math.sqrt(1 - n / of_pages) * 3.7 * of_pages / n * most
    width = median(high - low for _, low, high in intervals)
    assert covered >= (0.93 if EXAMPLES >= 100 else 0.84)
    assert width <= max(2 * (2 * 1.96 * deviation), unknown)


@pytest.mark.parametrize("name", SHAPES)
def test_the_interval_of_draws_holds_the_truth(name: str) -> None:
    """Of a user who may not see where rows lie. Every draw takes each page with the same chance, as TABLESAMPLE."""
    table, _ = SHAPES[name]
    truth = sum(table)
    covered = 0
    for seed in range(EXAMPLES // 4):
        chance = random.Random(seed)  # noqa: S311
        pages = [[table[page] for page in range(PAGES) if chance.random() < 0.05 / DRAWS] for _ in range(DRAWS)]
        _, low, high = interval(Draws(PAGES, [(sum(drawn), len(drawn)) for drawn in pages]))
        covered += low <= truth <= high
    assert covered >= (0.93 if EXAMPLES >= 400 else 0.6) * (EXAMPLES // 4)
