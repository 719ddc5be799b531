"""Numbers and lists in the words of a caption: significant digits, percentage points, true minus signs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


def number(value: float | None, digits: int = 4) -> str:
    """Return the number with `digits` significant digits and a true minus sign."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size == 0 or 1e-4 <= size < 10**digits:
        shown = _plain(value, digits)
    else:
        shown = f"{value:,.0f}" if 10**digits <= size < 1e9 else f"{value:.{digits}g}"
    return shown.replace("-", "−")


def _plain(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # of the rounded value: 9.999 has two places
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def points(change: float | None) -> str:
    """Return a change of a share in percentage points, with its sign."""
    if change is None or not math.isfinite(change):
        return "–"
    return f"{100 * change:+.1f}".replace("-", "−").replace("+0.0", "0.0").replace("−0.0", "0.0")


def percent(share: float | None) -> str:
    """Return a share as per cent with one decimal."""
    return "–" if share is None or not math.isfinite(share) else f"{100 * share:.1f}%".replace("-", "−")


def join(words: Sequence[str]) -> str:
    """Return the words as a list in a sentence."""
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else "".join(words)


def count(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural where it must be."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def span(values: Sequence[int]) -> str:
    """Return the numbers as `low to high`, or as the one that they all are."""
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"


def after(edits: Sequence[int]) -> str:
    """Return `after 1, 5 and 10 edits`; of more than six numbers the first, how many between, and the last."""
    shown = [str(count) for count in edits]
    if len(shown) > 6:
        shown = [shown[0], f"{len(shown) - 2} numbers between", shown[-1]]
    return f"after {join(shown)} {'edit' if list(edits) == [1] else 'edits'}"


def largest(rows: Sequence[Row], key: Any) -> Row | None:
    """Return the row whose `key` is largest among those where it is a finite number, or None."""
    finite = [row for row in rows if key(row) is not None and math.isfinite(key(row))]
    return max(finite, key=key, default=None)


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """Return `[low, high]`, or nothing where one of them is not known."""
    return "" if low is None or high is None else f" [{number(low, digits)}, {number(high, digits)}]"


def seeds(count: int) -> str:
    """Return the sentence about the seeds of numbers that carry no other error."""
    if count > 1:
        return f" Mean and standard error over {count} seeds."
    return " One seed: the numbers are exact for its sequence of edits and carry no error bar."
