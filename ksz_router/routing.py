"""Which connection of a source takes the next delivery, and when a source is left in peace.

Pure: the breaker is a value, time is an argument. It comes after the record, per destination;
whether a request may go there at all is the control's.
"""

from collections.abc import Sequence

import msgspec


class Breaker(msgspec.Struct, frozen=True):
    """The memory of a source's failures in a row. A new one lets everything through."""

    failures: int = 0
    open_until_ns: int = 0
    """0 while closed. After this moment one request is let through as a trial."""
    is_trying: bool = False


class BreakerSettings(msgspec.Struct, frozen=True):
    """When a breaker opens, and for how long."""

    failures_max: int
    open_ns: int


def admits(breaker: Breaker, now_ns: int) -> bool:
    """Say whether a request may go to the source now."""
    if breaker.open_until_ns == 0:
        return True
    return now_ns >= breaker.open_until_ns and not breaker.is_trying


def after_sending(breaker: Breaker) -> Breaker:
    """A request was let through; while open, it is the trial."""
    if breaker.open_until_ns == 0:
        return breaker
    return Breaker(breaker.failures, breaker.open_until_ns, is_trying=True)


def after_not_sending(breaker: Breaker) -> Breaker:
    """What was let through could not be sent after all: while open, the trial is still due."""
    return Breaker(breaker.failures, breaker.open_until_ns)


def after_success(breaker: Breaker) -> Breaker:
    """The source answered: its failures are forgotten."""
    return breaker if breaker.failures == 0 else Breaker()


def after_failure(breaker: Breaker, now_ns: int, settings: BreakerSettings) -> Breaker:
    """The source failed; after enough failures in a row it is left in peace for a while."""
    failures = breaker.failures + 1
    if failures < settings.failures_max:
        return Breaker(failures)
    return Breaker(failures, now_ns + settings.open_ns)


def least_loaded(loads: Sequence[int | None]) -> int | None:
    """Return the index of the smallest load; ``None`` entries take nothing."""
    best: int | None = None
    least = 0
    for index, load in enumerate(loads):
        if load is not None and (best is None or load < least):
            best, least = index, load
    return best
