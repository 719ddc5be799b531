"""The one exception type that a user meets, and the did-you-mean sentence."""

import difflib
from collections.abc import Iterable


def escape_unprintable(text: str) -> str:
    """Return a text with line breaks and a terminal's commands escaped: what comes from a file may hold them."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class CollateralError(Exception):
    """A fault that the user can mend: one line that names the thing, its value, and the remedy.

    What comes from a file may hold line breaks and a terminal's commands: they are shown escaped.
    """

    def __init__(self, message: str):
        super().__init__(escape_unprintable(message))


def unknown_name(kind: str, name: str, valid: Iterable[str]) -> CollateralError:
    """Return the error for a name that is not among the valid ones, with the nearest of them."""
    names = sorted(valid)
    nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ""
    return CollateralError(f"unknown {kind} '{name}'{hint} (valid: {', '.join(names) or 'none'})")
