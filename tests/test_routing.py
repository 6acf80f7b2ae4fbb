"""The breaker against a naive model, and the choice of the least loaded connection."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ksz_router.routing import (
    Breaker,
    BreakerSettings,
    admits,
    after_failure,
    after_sending,
    after_success,
    least_loaded,
)

FAILURES_MAX, OPEN_NS = 3, 10


class BreakerBesideItsStory(RuleBasedStateMachine):
    """A breaker beside everything that happened, from which the model answers anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.settings = BreakerSettings(FAILURES_MAX, OPEN_NS)
        self.breaker = Breaker()
        self.now_ns = 0
        self.story: list[tuple[str, int]] = []

    @rule(passed_ns=st.integers(0, 2 * OPEN_NS))
    def time_passes(self, passed_ns: int) -> None:
        self.now_ns += passed_ns

    @rule()
    def a_request_comes(self) -> None:
        if admits(self.breaker, self.now_ns):
            self.story.append(("sent", self.now_ns))
            self.breaker = after_sending(self.breaker)

    @rule()
    def the_source_answers(self) -> None:
        self.story.append(("answered", self.now_ns))
        self.breaker = after_success(self.breaker)

    @rule()
    def the_source_fails(self) -> None:
        self.story.append(("failed", self.now_ns))
        self.breaker = after_failure(self.breaker, self.now_ns, self.settings)

    @invariant()
    def a_request_passes_as_the_story_says(self) -> None:
        since_answer: list[tuple[str, int]] = []
        for what, when in self.story:
            since_answer = [] if what == "answered" else [*since_answer, (what, when)]
        failures = [when for what, when in since_answer if what == "failed"]
        if len(failures) < FAILURES_MAX:
            expected = True
        else:
            last = max(i for i, (what, _) in enumerate(since_answer) if what == "failed")
            is_trying = any(what == "sent" for what, _ in since_answer[last + 1 :])
            expected = self.now_ns >= failures[-1] + OPEN_NS and not is_trying
        assert admits(self.breaker, self.now_ns) is expected


TestBreaker = BreakerBesideItsStory.TestCase


def opened(at_ns: int = 0) -> Breaker:
    breaker = Breaker()
    for _ in range(FAILURES_MAX):
        breaker = after_failure(breaker, at_ns, BreakerSettings(FAILURES_MAX, OPEN_NS))
    return breaker


def test_a_breaker_opens_tries_once_and_closes_again() -> None:
    """The whole life: three failures, a pause, one trial, and its success lets all through."""
    breaker = opened()
    assert not admits(breaker, OPEN_NS - 1)
    assert admits(breaker, OPEN_NS)
    trying = after_sending(breaker)
    assert not admits(trying, 10 * OPEN_NS), "one trial only"
    assert after_success(trying) == Breaker()


def test_a_trial_that_fails_opens_anew_from_its_own_moment() -> None:
    """The pause counts from the last failure, and then another trial is due."""
    again = after_failure(after_sending(opened()), 25, BreakerSettings(FAILURES_MAX, OPEN_NS))
    assert not admits(again, 25 + OPEN_NS - 1)
    assert admits(again, 25 + OPEN_NS)


def test_a_breaker_is_a_value() -> None:
    """Nothing that happens to one changes another that was made before."""
    breaker = opened()
    after_sending(breaker)
    after_success(breaker)
    assert breaker == opened()
    assert hash(breaker) == hash(opened())


@given(st.lists(st.none() | st.integers(0, 5), max_size=6))
def test_the_least_loaded_is_the_first_of_the_smallest(loads: list[int | None]) -> None:
    """Who takes nothing is never chosen; among equals the first is, so that links fill in turn."""
    free = [load for load in loads if load is not None]
    expected = loads.index(min(free)) if free else None
    assert least_loaded(loads) == expected
