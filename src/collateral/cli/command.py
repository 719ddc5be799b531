"""What each subcommand of `collateral` consists of."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand.

    Attributes:
        name: as typed.
        summary: one line of help.
        add_options: adds its options to a parser.
        run: does the work and returns the exit status; imports what is large itself.
    """

    name: str
    summary: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
