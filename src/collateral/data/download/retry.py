"""Asking again for what fails in passing: exponential back-off with jitter, bounded in tries and in waiting."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import tenacity

log = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long an action may be asked for again."""

    tries: int = 10
    first: float = 1.0
    """Seconds before the second try; each further wait is twice as long, plus up to a second of chance."""
    longest: float = 60.0
    """Seconds of one wait, unless the server asks for more."""
    total: float = 600.0
    """Seconds of waiting in all."""
    connect: float = 15.0
    """Seconds until a server must have answered a connection."""
    read: float = 60.0
    """Seconds until a server must have sent the next bytes."""
    sleep: Callable[[float], None] = time.sleep


class Passing(Exception):  # noqa: N818  (it is not yet an error)
    """A fault that may pass; its text becomes part of the user's line when patience ends."""

    def __init__(self, reason: str, wait: float = 0.0, tries: int | None = None):
        """Say how many seconds the server asks to wait, and how many tries such a fault is worth at most."""
        super().__init__(reason)
        self.wait = wait
        self.tries = tries


def retried(action: Callable[[], Result], patience: Patience) -> Result:
    """Return what `action` returns, asking again while it raises Passing and patience lasts.

    Raises:
        Passing: the last fault, once the tries or the seconds of waiting are used up.
    """
    backoff = tenacity.wait_exponential_jitter(initial=patience.first, max=patience.longest, jitter=1.0)

    def pause(state: tenacity.RetryCallState) -> float:
        return max(_fault(state).wait, backoff(state))

    def ended(state: tenacity.RetryCallState) -> bool:
        most = min(patience.tries, _fault(state).tries or patience.tries)
        return state.attempt_number >= most or state.idle_for + state.upcoming_sleep > patience.total

    def tell(state: tenacity.RetryCallState) -> None:
        log.warning("%s; trying again in %.0f s", _fault(state), state.upcoming_sleep)

    asking = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Passing),
        wait=pause,
        stop=ended,
        sleep=patience.sleep,
        before_sleep=tell,
        reraise=True,
    )
    return asking(action)


def seconds_asked(retry_after: str) -> float:
    """Return the seconds that an HTTP header Retry-After asks for, a number or a date; 0 where it asks for none."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _fault(state: tenacity.RetryCallState) -> Passing:
    fault = state.outcome.exception() if state.outcome else None
    assert isinstance(fault, Passing)
    return fault
