"""Bytes, hours and counts as text."""


def hours(value: float) -> str:
    """Return hours with two digits that count, below one in minutes or seconds: `40 s`, `4 min`, `3.1 h`, `250 h`."""
    if value <= 0:
        return "-"
    if value < 1 / 60:
        return f"{3600 * value:.0f} s"
    if value < 1:
        return f"{_short(60 * value)} min"
    return f"{float(f'{value:.2g}'):,.0f} h" if value >= 100 else f"{_short(value)} h"


def size(value: float) -> str:
    """Return bytes as MB, GB or TB with two digits that count."""
    if value <= 0:
        return "-"
    for unit, scale in (("MB", 1e6), ("GB", 1e9)):
        if value < 1000 * scale:
            return f"{_short(value / scale)} {unit}"
    return f"{_short(value / 1e12)} TB"


def _short(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def checkpoints(count: int) -> str:
    """Return a number of checkpoints in words: `1 checkpoint`, `2,400 checkpoints`."""
    return f"{count:,} checkpoint{'' if count == 1 else 's'}"
