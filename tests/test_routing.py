"""The breaker against a naive model, and the choice of the least loaded connection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ksz_router.limits import breaker_outcomes_kept
from ksz_router.routing import (
    Breaker,
    BreakerSettings,
    admits,
    after_failure,
    after_not_sending,
    after_sending,
    after_success,
    has_room,
    least_loaded,
)

OPEN_NS = 10
SETTINGS = BreakerSettings(failures_max=5, open_ns=OPEN_NS, failed_share=0.5)


class BreakerBesideItsStory(RuleBasedStateMachine):
    """A breaker beside a plain list of all that happened since it was last closed."""

    settings: BreakerSettings

    @initialize(failures_max=st.integers(1, 25), failed_share=st.sampled_from([0.05, 0.3, 0.5, 1]))
    def begin(self, failures_max: int, failed_share: float) -> None:
        self.settings = BreakerSettings(failures_max, OPEN_NS, failed_share)
        self.breaker = Breaker()
        self.now_ns = 1
        self.failed: list[bool] = []
        self.opened_ns: int | None = None
        self.has_trial = False

    @rule(passed_ns=st.integers(0, 2 * OPEN_NS))
    def time_passes(self, passed_ns: int) -> None:
        self.now_ns += passed_ns

    @rule()
    def a_request_comes(self) -> None:
        if admits(self.breaker, self.now_ns):
            self.has_trial = self.opened_ns is not None
            self.breaker = after_sending(self.breaker)

    @precondition(lambda self: self.has_trial)
    @rule()
    def the_trial_comes_to_nothing(self) -> None:
        self.breaker = after_not_sending(self.breaker)
        self.has_trial = False

    @rule(failed=st.booleans(), times=st.integers(1, 12))
    def what_was_sent_before_ends(self, *, failed: bool, times: int) -> None:
        for _ in range(times):
            self.happens(failed=failed, is_trial=False)
            if self.opened_ns is None:
                self.failed.append(failed)
                kept = self.failed[-breaker_outcomes_kept:]
                many = sum(kept) >= self.settings.failed_share * breaker_outcomes_kept
                most = self.settings.failures_max
                in_a_row = len(self.failed) >= most and all(self.failed[-most:])
                if failed and (in_a_row or (many and len(kept) == breaker_outcomes_kept)):
                    self.opened_ns, self.failed = self.now_ns, []

    @precondition(lambda self: self.has_trial)
    @rule(failed=st.booleans())
    def the_trial_ends(self, *, failed: bool) -> None:
        self.happens(failed=failed, is_trial=True)
        self.has_trial = False
        self.opened_ns = self.now_ns if failed else None

    def happens(self, *, failed: bool, is_trial: bool) -> None:
        if failed:
            now_ns, settings = self.now_ns, self.settings
            self.breaker = after_failure(self.breaker, now_ns, settings, is_trial=is_trial)
        else:
            self.breaker = after_success(self.breaker, is_trial=is_trial)

    @invariant()
    def a_request_passes_as_the_story_says(self) -> None:
        is_over = self.opened_ns is None or self.now_ns >= self.opened_ns + OPEN_NS
        assert admits(self.breaker, self.now_ns) is (is_over and not self.has_trial)

    @invariant()
    def its_memory_is_bounded(self) -> None:
        assert self.breaker.outcomes < 2 << breaker_outcomes_kept


TestBreaker = BreakerBesideItsStory.TestCase


def after(breaker: Breaker, outcomes: str, at_ns: int = 0) -> Breaker:
    """What becomes of a breaker by these outcomes, ``x`` for a failure."""
    for outcome in outcomes:
        if outcome == "x":
            breaker = after_failure(breaker, at_ns, SETTINGS, is_trial=False)
        else:
            breaker = after_success(breaker, is_trial=False)
    return breaker


def opened() -> Breaker:
    return after(Breaker(), "xxxxx")


@pytest.mark.parametrize(
    ("outcomes", "opens"),
    [
        ("xxxx", False),
        ("xxxxx", True),
        ("xxxx.xxxx.", False),
        ("x." * 9 + ".x", True),
        ("x." * 9 + "..", False),
        (".." + "x." * 9, False),
        ("x." * 9 + "x", False),
        ("x." * 9 + "." * 20 + "xxxx", False),
    ],
)
def test_five_failures_in_a_row_or_half_of_twenty_open_a_breaker(
    outcomes: str, *, opens: bool
) -> None:
    """The share counts over the last twenty only, and only once there are twenty."""
    assert admits(after(Breaker(), outcomes), 0) is not opens


def test_a_breaker_opens_tries_once_and_closes_again() -> None:
    """The whole life: five failures, a pause, one trial, and its success lets all through."""
    breaker = opened()
    assert not admits(breaker, OPEN_NS - 1)
    assert admits(breaker, OPEN_NS)
    trying = after_sending(breaker)
    assert not admits(trying, 10 * OPEN_NS), "one trial only"
    assert after_success(trying, is_trial=True) == Breaker()


def test_a_trial_that_fails_opens_anew_from_its_own_moment() -> None:
    """The pause counts from there, and then another trial is due."""
    again = after_failure(after_sending(opened()), 25, SETTINGS, is_trial=True)
    assert not admits(again, 25 + OPEN_NS - 1)
    assert admits(again, 25 + OPEN_NS)


def test_what_was_sent_before_a_breaker_opened_neither_prolongs_nor_ends_its_pause() -> None:
    """A thousand that hang would else keep it open for a minute, one old answer close it."""
    assert after(opened(), "xx.x.", at_ns=OPEN_NS - 1) == opened()
    trying = after_sending(opened())
    assert after(trying, "x.", at_ns=OPEN_NS) == trying


def test_a_breaker_is_a_value() -> None:
    """Nothing that happens to one changes another that was made before."""
    breaker = opened()
    after_sending(breaker)
    after_success(breaker, is_trial=True)
    assert breaker == opened()
    assert hash(breaker) == hash(opened())


@given(st.integers(1, 64), st.lists(st.integers(0, 5), max_size=200))
def test_nobody_fills_the_window_of_a_source_alone(window: int, asking: list[int]) -> None:
    """However greedy the others are, who has nothing there yet finds room while there is any."""
    taken = [0] * 6
    for who in asking:
        if has_room(mine=taken[who], taken=sum(taken), window=window):
            taken[who] += 1
    assert sum(taken) <= window
    assert max(taken) <= (window + 1) // 2
    if sum(taken) < window:
        assert has_room(mine=0, taken=sum(taken), window=window)
    if len(set(asking)) <= 1 and window > 1:
        assert sum(taken) < window, "there is room for another one"


@given(st.lists(st.none() | st.integers(0, 5), max_size=6))
def test_the_least_loaded_is_the_first_of_the_smallest(loads: list[int | None]) -> None:
    """Who takes nothing is never chosen; among equals the first is, so that links fill in turn."""
    free = [load for load in loads if load is not None]
    expected = loads.index(min(free)) if free else None
    assert least_loaded(loads) == expected
