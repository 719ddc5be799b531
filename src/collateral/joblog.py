"""The frame of every job: where it logs, how it fails, how many threads and which GPU it may use."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from collateral.cards import take_card
from collateral.errors import CollateralError

NOTE = 25  # between INFO and WARNING: worth a line on the terminal
logging.addLevelName(NOTE, "NOTE")


@contextmanager
def job(log_path: str, threads: int = 1, device: str = "cpu") -> Iterator[None]:
    """Run a job: all it prints goes to `log_path`; notes, warnings and errors to the terminal too.

    A user's mistake (CollateralError) ends it with one line and exit status 1.

    Args:
        log_path: the rule's log file.
        threads: torch's number of threads, where the job uses torch; results depend on it.
        device: of the job's model; with plain `cuda` the job takes a card that no other job of the machine has.
    """
    path = Path(log_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    own = logging.getLogger("collateral")
    own.setLevel(logging.INFO)
    own.propagate = False
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
    with path.open("w", encoding="utf-8") as file:
        # libraries print progress and advice by themselves; several jobs at once would garble the terminal
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
        own.handlers = [_handler(sys.stderr, logging.INFO), _handler(terminal, NOTE)]
        try:
            card = take_card(device)
            if card:
                own.info("takes the card %s", card)
            yield
        except CollateralError as error:
            own.error("%s", error)
            sys.exit(1)
        except Exception:
            own.exception("the job failed; this is a fault of the program, not of the study")
            sys.exit(1)


def _handler(stream: TextIO, level: int) -> logging.Handler:
    handler: logging.Handler = logging.StreamHandler(stream)
    handler.setLevel(level)
    text = "%(asctime)s %(levelname)s %(message)s" if level == logging.INFO else "%(levelname)s: %(message)s"
    handler.setFormatter(logging.Formatter(text, "%H:%M:%S"))
    return handler
