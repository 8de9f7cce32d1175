"""What a sample says of the whole: an estimate, and what the truth lies between."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from harborctl.counts.sample import MOST_ROWS, Draws, PageSample

if TYPE_CHECKING:
    from collections.abc import Mapping


# Formulas hold on average, of an endless number of samples; without a margin they hold in 89 of 100 on a table with a
# long tail, and in 92 by chance on any other. With it, widths are 1.2 to 1.9 of what the true variance would give.
MARGIN = 1.3


RARE_MARGIN = 1.2


def interval(sample: PageSample | Draws) -> tuple[int, int, int]:
    """The rows of the table that a sample of its pages speaks for, and what they lie between with 95 % confidence.

    Pages are the units, not rows: rows of one page come together. The number on a page is taken apart into three: the
    median; what differs from it by up to the 90th percentile of such differences, for which Student's t holds; and the
    rest, on few pages, above and below. Few pages come as rare events do, and their sum has a gamma interval (Fay and
    Feuer, Confidence intervals for directly standardized rates, 1997), which also bounds what no page has shown. The
    three go together by the squares of their distances (Zou and Donner, Construction of confidence limits about effect
    measures, 2008). tests/counts/test_interval.py simulates how often the truth is in it, and how wide it is.
    """
    if isinstance(sample, Draws):
        return _interval_of_draws(sample)
    n, total = sum(sample.pages.values()), sample.of_pages
    seen = sample.certain + sum(rows * pages for rows, pages in sample.pages.items())
    if n >= total:
        return seen, seen, seen
    median = _quantile(sample.pages, 0.5)
    distances: Counter[int] = Counter()
    for rows, pages in sample.pages.items():
        distances[abs(rows - median)] += pages
    usual = _quantile(distances, 0.9)
    near = {rows: min(max(rows - median, -usual), usual) for rows in sample.pages}
    above = {max(rows - median - usual, 0): pages for rows, pages in sample.pages.items()}
    below = {max(median - usual - rows, 0): pages for rows, pages in sample.pages.items() if rows < median}
    mean = sum(near[rows] * pages for rows, pages in sample.pages.items()) / n
    variance = sum((near[rows] - mean) ** 2 * pages for rows, pages in sample.pages.items()) / (n - 1)
    half = MARGIN * _student(n - 1) * math.sqrt(variance * n)
    more, more_low, more_high = _rare(above, max(sample.most - median - usual, 0))
    less, less_low, less_high = _rare(below, max(median - usual, 0))
    # Of n pages each; what is read is no longer in doubt.
    rest, scale = math.sqrt(1 - n / total), total / n
    down = rest * math.hypot(half, more - more_low, less_high - less)
    up = rest * math.hypot(half, more_high - more, less - less_low)
    middle = (median + mean) * n + more - less
    rows = sample.certain + round(scale * middle)
    low = sample.certain + math.floor(scale * (middle - down))
    return rows, min(max(low, seen), rows), sample.certain + math.ceil(scale * (middle + up))


def _interval_of_draws(sample: Draws) -> tuple[int, int, int]:
    """As `interval`, from the differences between draws; each is one unit, whatever lies together in it."""
    n = sum(pages for _, pages in sample.draws)
    seen = sum(rows for rows, _ in sample.draws)
    if not n:
        return 0, 0, sample.of_pages * MOST_ROWS
    number, mean = len(sample.draws), seen / n
    residuals = sum((rows - mean * pages) ** 2 for rows, pages in sample.draws)
    half = MARGIN * _student(number - 1) * math.sqrt(residuals * number / (number - 1))
    _, _, unseen = _rare({}, math.ceil(mean) or MOST_ROWS)
    scale = sample.of_pages / n
    rows = round(scale * seen)
    low = math.floor(scale * (seen - math.hypot(half, unseen if seen else 0)))
    return rows, max(low, 0), math.ceil(scale * (seen + math.hypot(half, unseen)))


def _quantile(numbers: Mapping[int, int], share: float) -> int:
    """The number that so large a share of all does not exceed; `numbers` says how often each comes."""
    left = share * sum(numbers.values())
    for number in sorted(numbers):
        left -= numbers[number]
        if left <= 0:
            break
    return number


def _rare(sizes: Mapping[int, int], largest: int) -> tuple[float, float, float]:
    """The sum of what came rarely, and what its expectation lies between; `largest` is what could come at most."""
    total = sum(size * pages for size, pages in sizes.items())
    squares = sum(size * size * pages for size, pages in sizes.items())
    most = max(sizes, default=0) or largest
    if not most:
        return 0, 0, 0
    low = squares / (2 * total) * _chi_squared(2 * total**2 / squares, -Z) if total else 0.0
    further, weight = squares + most**2, total + most
    high = further / (2 * weight) * _chi_squared(2 * weight**2 / further, Z)
    return total, total - RARE_MARGIN * (total - low), total + RARE_MARGIN * (high - total)


def _chi_squared(freedom: float, z: float) -> float:
    """The quantile of chi squared at a normal one (E. B. Wilson and M. M. Hilferty, 1931)."""
    return float(freedom * max(1 - 2 / (9 * freedom) + z * math.sqrt(2 / (9 * freedom)), 0.0) ** 3)


# The 97.5 % quantile of the normal distribution.
Z = 1.959964


def _student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, good from 10 degrees of freedom on (Abramowitz and Stegun, 26.7.5)."""
    return Z + (Z**3 + Z) / (4 * freedom) + (5 * Z**5 + 16 * Z**3 + 3 * Z) / (96 * freedom**2)
