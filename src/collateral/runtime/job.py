"""The frame of every job: where it logs, how it fails, and which GPU it may use."""

import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from collateral.errors import CollateralError
from collateral.io.log_levels import NOTE
from collateral.io.resource_errors import shortage
from collateral.runtime.gpu_lock import take_gpu
from collateral.runtime.job_cache import Claim, keep, take_back

COMMAND = "COLLATERAL_COMMAND"  # environment variable: what starts the workflow for one more target
BEGUN, DONE = "begun", "done"  # how the log of a job with a claim begins and ends
logging.addLevelName(NOTE, "NOTE")

if hasattr(sys.modules["__main__"], "snakemake"):
    # A job's script imports this first: searching for garbage takes a third of the time of its other imports.
    gc.disable()


@contextmanager
def job(log_path: str, device: str = "", claim: Claim | None = None) -> Iterator[None]:
    """Run a job: all it prints goes to `log_path`; notes, warnings and errors to the terminal too.

    A user's mistake (CollateralError) ends it with one line and exit status 1, and so does a machine that is short of
    disk, permission or memory.

    Args:
        log_path: the rule's log file.
        device: of the job's model; with plain `cuda` the job takes a GPU that no other job of the machine has.
        claim: what decides the job's outputs; with it, a job that an interrupted run had finished takes them back
            and ends there.
    """
    path = Path(log_path)
    path.parent.mkdir(parents=True, exist_ok=True)
    terminal = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
    logger = logging.getLogger("collateral")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    gc.freeze()  # what is imported stays
    gc.enable()
    with path.open("w", encoding="utf-8") as file:
        # libraries print progress and advice by themselves; several jobs at once would garble the terminal
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
        logger.handlers = [_handler(sys.stderr, logging.INFO), _handler(terminal, NOTE)]
        try:
            if claim is not None:
                logger.info(
                    "%s; alone: %s %s", BEGUN, os.environ.get(COMMAND, "snakemake --"), claim.outputs[0]
                )
            if claim is not None and take_back(claim):
                logger.info("taken back: an interrupted run had finished this job")
                logger.info(DONE)
                sys.exit(0)
            gpu = take_gpu(device)
            if gpu:
                logger.info("takes the GPU %s", gpu)
            yield
            if claim is not None:
                keep(claim)
                logger.info(DONE)
        except CollateralError as error:
            logger.error("%s", error)
            sys.exit(1)
        except Exception as error:
            shortfall = shortage(error)
            if shortfall is not None:
                logger.info("where it happened:", exc_info=True)
                logger.error("%s", shortfall)
                sys.exit(1)
            logger.exception("the job failed; this is a fault of the program, not of the study")
            sys.exit(1)


def _handler(stream: TextIO, level: int) -> logging.Handler:
    handler: logging.Handler = logging.StreamHandler(stream)
    handler.setLevel(level)
    text = "%(asctime)s %(levelname)s %(message)s" if level == logging.INFO else "%(levelname)s: %(message)s"
    handler.setFormatter(logging.Formatter(text, "%H:%M:%S"))
    return handler


def is_unfinished(log_path: Path) -> bool:
    """Return whether a log says that its job has begun, and not that it is done."""
    text = log_path.read_text(encoding="utf-8", errors="replace") if log_path.is_file() else ""
    return f" {BEGUN}; " in text.partition("\n")[0] and not text.rstrip().endswith(f" {DONE}")
