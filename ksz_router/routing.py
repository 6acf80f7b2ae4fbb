"""Which connection of a source takes the next delivery, and when a source is left in peace.

Pure: the breaker is a value, time is an argument. It comes after the record, per destination;
whether a request may go there at all is the control's.
"""

from collections.abc import Sequence

import msgspec

from ksz_router.limits import breaker_outcomes_kept


class Breaker(msgspec.Struct, frozen=True):
    """The memory of how a source did. A new one lets everything through."""

    failures: int = 0
    """In a row."""
    outcomes: int = 1
    """The last ``breaker_outcomes_kept``, the latest in the lowest bit, 1 for a failure.

    Above the oldest stands a 1, so that the length tells how many there are.
    """
    open_until_ns: int = 0
    """0 while closed. After this moment one request is let through as a trial."""
    is_trying: bool = False


ALL_GOOD = 1 << breaker_outcomes_kept
"""Outcomes of a source that answered every time."""


class BreakerSettings(msgspec.Struct, frozen=True):
    """When a breaker opens, and for how long."""

    failures_max: int
    """In a row."""
    open_ns: int
    failed_share: float
    """Of the last ``breaker_outcomes_kept``, once there are so many."""


def admits(breaker: Breaker, now_ns: int) -> bool:
    """Say whether a request may go to the source now."""
    if breaker.open_until_ns == 0:
        return True
    return now_ns >= breaker.open_until_ns and not breaker.is_trying


def after_sending(breaker: Breaker) -> Breaker:
    """A request was let through; while open, it is the trial."""
    if breaker.open_until_ns == 0:
        return breaker
    return Breaker(open_until_ns=breaker.open_until_ns, is_trying=True)


def after_not_sending(breaker: Breaker) -> Breaker:
    """The trial taught nothing: it was not sent, or not waited for. Another one is due."""
    return Breaker(open_until_ns=breaker.open_until_ns)


def after_success(breaker: Breaker, *, is_trial: bool) -> Breaker:
    """The source answered. Of an open breaker only the trial tells anything new."""
    if breaker.open_until_ns:
        return Breaker() if is_trial else breaker
    if breaker.outcomes == ALL_GOOD:
        return breaker  # a source that always answers costs nothing
    outcomes = _appended(breaker.outcomes, 0)
    return Breaker(0, outcomes)


def after_failure(
    breaker: Breaker, now_ns: int, settings: BreakerSettings, *, is_trial: bool
) -> Breaker:
    """The source failed; after too many failures it is left in peace for a while.

    What was sent before the breaker opened may still fail; that does not prolong the pause.
    """
    if breaker.open_until_ns:
        return Breaker(open_until_ns=now_ns + settings.open_ns) if is_trial else breaker
    failures, outcomes = breaker.failures + 1, _appended(breaker.outcomes, 1)
    failed, is_full = outcomes.bit_count() - 1, outcomes >> breaker_outcomes_kept
    least = settings.failed_share * breaker_outcomes_kept
    if failures >= settings.failures_max or (is_full and failed >= least):
        return Breaker(open_until_ns=now_ns + settings.open_ns)
    return Breaker(failures, outcomes)


def _appended(outcomes: int, outcome: int) -> int:
    outcomes = outcomes << 1 | outcome
    mark = 1 << breaker_outcomes_kept
    return outcomes if outcomes < 2 * mark else outcomes & (mark - 1) | mark


def has_room(*, mine: int, taken: int, window: int) -> bool:
    """Say whether a requester may have one more in flight at a source.

    Args:
        mine: What the requester has in flight there.
        taken: What everyone has in flight there.
        window: How many there may be.

    Nobody may have more there than there is room left. So one alone gets half of the window, two
    a third each, and who comes next finds room however a source hangs.
    """
    return mine < window - taken


def least_loaded(loads: Sequence[int | None]) -> int | None:
    """Return the index of the smallest load; ``None`` entries take nothing."""
    best: int | None = None
    least = 0
    for index, load in enumerate(loads):
        if load is not None and (best is None or load < least):
            best, least = index, load
    return best
