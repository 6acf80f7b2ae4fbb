"""The submission ledger: nothing reaches a recipient twice unannounced, whatever is killed when."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ksz_router.codes import Code
from ksz_router.ledger import (
    NOT_SENT,
    UNKNOWN,
    Claim,
    Earlier,
    Granted,
    Ledger,
    LedgerError,
    Noted,
    Recall,
)
from ksz_router.limits import recipients_max

HOUR_US = 3_600_000_000
A, B, C = "0200000001", "0200000002", "0200000003"
ROWS_MAX = 50


def open_ledger(folder: Path, *, rows_max: int = ROWS_MAX, made: bool = False) -> Ledger:
    return Ledger(
        folder, rows_max=rows_max, window_us=HOUR_US, made_for_boot_s=1.0 if made else None
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = open_ledger(tmp_path / "ledger", made=True)
    yield made
    made.close()


def name(number: int) -> bytes:
    return number.to_bytes(16, "big")


def claim(
    ticket: int, exchange: int, *, content: int = 7, to: tuple[str, ...] = (A,), slot: int = 0,
    is_to_all: bool = False,
) -> Claim:  # fmt: skip
    return Claim([(name(ticket), name(content))], name(exchange), slot, to, is_to_all)


def went(ledger: Ledger, ticket: int, exchange: int, **codes: Code) -> None:
    """Settle an attempt with what became of it, recipients by their letter."""
    found = {{"a": A, "b": B, "c": C}[letter]: int(code) for letter, code in codes.items()}
    ledger.note([Noted(name(ticket), name(exchange), found, is_whole=True, digest=b"\x11" * 32)])
    ledger.settle([(name(ticket), name(exchange))])


def granted(held: Granted | Earlier | Code) -> Granted:
    assert isinstance(held, Granted), held
    return held


def test_a_known_outcome_is_told_and_not_sent_again(ledger: Ledger) -> None:
    """The earlier exchange, its code and the digest of its payload; nothing more is kept."""
    (first,) = ledger.claim([claim(1, 10)], 5)
    assert first == Granted(name(10), 1, (A,), frozenset(), {})
    went(ledger, 1, 10, a=Code.ANSWERED_WITH_DATA)
    assert ledger.claim([claim(1, 11)], 6) == [
        Earlier(name(10), {A: Code.ANSWERED_WITH_DATA}, b"\x11" * 32)
    ]


@pytest.mark.parametrize("is_noted", [False, True])
def test_an_attempt_under_way_lets_no_other_through(ledger: Ledger, *, is_noted: bool) -> None:
    """Also not while its outcome is on its way into the log, nor twice in one batch."""
    held = ledger.claim([claim(1, 10), claim(1, 11)], 5)
    assert isinstance(held[0], Granted)
    assert held[1] == Code.SUBMISSION_OPEN
    if is_noted:
        ledger.note([Noted(name(1), name(10), {A: 10001}, is_whole=True)])
    assert ledger.claim([claim(1, 12)], 6) == [Code.SUBMISSION_OPEN]


def test_other_content_under_a_ticket_is_refused(ledger: Ledger) -> None:
    """Whatever became of the first; tickets of others are not touched."""
    ledger.claim([claim(1, 10)], 5)
    assert ledger.claim([claim(1, 11, content=8)], 6) == [Code.TICKET_REUSED]
    went(ledger, 1, 10, a=Code.SOURCE_UNREACHABLE)
    held = ledger.claim([claim(1, 12, content=8), claim(2, 13, content=8)], 6)
    assert held[0] == Code.TICKET_REUSED
    assert granted(held[1]).first == name(13)


@pytest.mark.parametrize("code", sorted(UNKNOWN))
def test_an_unknown_outcome_is_repeated_to_the_same_recipient(ledger: Ledger, code: Code) -> None:
    """Under the first exchange id; where it is no destination any more, to nobody."""
    ledger.claim([claim(1, 10)], 5)
    went(ledger, 1, 10, a=code)
    (held,) = ledger.claim([claim(1, 11, to=(B, A))], 6)
    assert held == Granted(name(10), 2, (A,), frozenset({A}), {})
    went(ledger, 1, 11, a=code)
    assert isinstance(ledger.claim([claim(1, 12, to=(B,))], 7)[0], Earlier)


def test_what_may_have_arrived_once_is_not_forgotten_when_a_retry_is_not_sent(
    ledger: Ledger,
) -> None:
    """Silence, then an open breaker: the third attempt is a repeat, to the same recipient."""
    for exchange, code in ((10, Code.SOURCE_SILENT), (11, Code.SOURCE_BREAKER_OPEN)):
        ledger.claim([claim(1, exchange)], exchange)
        went(ledger, 1, exchange, a=code)
    (held,) = ledger.claim([claim(1, 12, to=(B, A))], 12)
    assert held == Granted(name(10), 3, (A,), frozenset({A}), {})


@pytest.mark.parametrize("code", sorted(NOT_SENT))
def test_what_never_left_is_sent_anew(ledger: Ledger, code: Code) -> None:
    """To whomever the control names now, and not as a repeat."""
    ledger.claim([claim(1, 10)], 5)
    went(ledger, 1, 10, a=code)
    (held,) = ledger.claim([claim(1, 11, to=(B, A))], 6)
    assert held == Granted(name(10), 2, (B,), frozenset(), {A: code})


def test_a_distribution_goes_to_who_lacks_it(ledger: Ledger) -> None:
    """Who has it is named with what he said; who may have it gets a repeat; who is new, a first."""
    ledger.claim([claim(1, 10, to=(A, B), is_to_all=True)], 5)
    went(ledger, 1, 10, a=Code.ANSWERED_WITHOUT_DATA, b=Code.SOURCE_SILENT)
    (held,) = ledger.claim([claim(1, 11, to=(A, B, C), is_to_all=True)], 6)
    assert held == Granted(name(10), 2, (B, C), frozenset({B}), {A: Code.ANSWERED_WITHOUT_DATA})


def test_a_retry_is_told_of_the_recipient_that_has_a_submission(ledger: Ledger) -> None:
    """Not of one that it never left for in an earlier attempt."""
    ledger.claim([claim(1, 10)], 5)
    went(ledger, 1, 10, a=Code.SOURCE_UNREACHABLE)
    ledger.claim([claim(1, 11, to=(B,))], 6)
    went(ledger, 1, 11, b=Code.ANSWERED_WITH_DATA)
    (held,) = ledger.claim([claim(1, 12, to=(A, B))], 7)
    assert held == Earlier(name(10), {B: Code.ANSWERED_WITH_DATA}, b"\x11" * 32)


def test_a_ticket_has_no_more_recipients_than_an_answer_names(ledger: Ledger) -> None:
    """However often the recipients of a distribution change: nothing is sent that goes unnamed."""
    crowd = tuple(f"{number:010}" for number in range(recipients_max + 1))
    held: list[Granted | Earlier | Code] = []
    for number, to in enumerate((crowd[:-1], crowd[1:])):
        held = ledger.claim([claim(1, 10 + number, to=to, is_to_all=True)], 5)
        if number == 0:
            codes = dict.fromkeys(to, int(Code.ANSWERED_WITH_DATA))
            ledger.note([Noted(name(1), name(10), codes, is_whole=True)])
            ledger.settle([(name(1), name(10))])
    assert held == [Code.TOO_MANY_RECIPIENTS]
    spared = claim(1, 12, to=crowd[:-1], is_to_all=True)._replace(spared=crowd[-1:])
    assert ledger.claim([spared], 6) == [Code.TOO_MANY_RECIPIENTS]
    assert isinstance(ledger.claim([spared._replace(spared=crowd[:1])], 7)[0], Earlier)


def test_a_full_ledger_refuses_and_forgets_what_is_old(tmp_path: Path) -> None:
    """Never a ticket within its time, nor one that is under way."""
    ledger = open_ledger(tmp_path / "small", rows_max=3, made=True)
    ledger.claim([claim(n, 10 + n) for n in range(3)], 5)
    went(ledger, 0, 10, a=Code.ANSWERED_WITH_DATA)
    assert ledger.claim([claim(9, 20)], HOUR_US) == [Code.LEDGER_FULL]
    assert isinstance(ledger.claim([claim(0, 21)], HOUR_US)[0], Earlier)
    assert isinstance(ledger.claim([claim(9, 22)], HOUR_US + 6)[0], Granted)
    assert ledger.claim([claim(8, 23)], 3 * HOUR_US) == [Code.LEDGER_FULL]
    assert ledger.rows == 3
    ledger.close()


def test_no_memory_left_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system says so, and what was claimed before stands."""
    monkeypatch.setattr("ksz_router.ledger.book.ROOM_BYTES", 0)
    ledger = open_ledger(tmp_path / "tiny", rows_max=40, made=True)
    held = []
    for number in range(2_000):
        held += ledger.claim([claim(number, number, to=(A,))], number * HOUR_US)
        if held[-1] == Code.LEDGER_FULL:
            break
    assert held[-1] == Code.LEDGER_FULL
    assert isinstance(held[0], Granted)
    ledger.close()


def test_a_ticket_is_found_under_its_name_of_the_quarter_before(ledger: Ledger) -> None:
    """And goes by its new name once it is sent again."""
    ledger.claim([claim(1, 10)], 5)
    went(ledger, 1, 10, a=Code.SOURCE_SILENT)
    names = [(name(101), name(107)), (name(1), name(7))]
    (held,) = ledger.claim([Claim(names, name(11), 0, (A,), is_to_all=False)], 6)
    assert granted(held).repeats == {A}
    went(ledger, 101, 11, a=Code.ANSWERED_WITH_DATA)
    assert isinstance(ledger.claim([claim(101, 12, content=107)], 7)[0], Earlier)
    assert ledger.rows == 1


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1)])
def test_attempts_come_to_the_same_in_whatever_order_they_are_read(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    """The log is read one writer after the other: who may have had it once may have it still."""
    ledger = open_ledger(tmp_path / "ledger", made=True)
    with Recall(ledger) as recall:
        for attempt in order:
            recall.request(
                key=name(1), content=name(7), exchange=name(9 + attempt), first=name(10),
                attempt=attempt, at_us=attempt,
            )  # fmt: skip
            code = (Code.SOURCE_SILENT, Code.SOURCE_UNREACHABLE, Code.OUTCOME_UNKNOWN)[attempt - 1]
            recall.outcome(name(1), attempt, {A: int(code)})
    (held,) = ledger.claim([claim(1, 99)], HOUR_US - 1)
    assert held == Granted(name(10), 4, (A,), frozenset({A}), {})
    went(ledger, 1, 99, a=Code.ANSWERED_WITH_DATA)
    assert ledger.rows == 1
    ledger.claim([claim(2, 100)], 3 * HOUR_US)
    assert ledger.rows == 1, "and its time counts from then on"
    ledger.close()


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_attempts_on_both_sides_of_a_quarter_are_one_ticket(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    """Each quarter hashes a ticket anew: the id of the first attempt says that it is the same."""
    ledger = open_ledger(tmp_path / "ledger", made=True)
    codes = {1: {A: Code.ANSWERED_WITH_DATA, B: Code.SOURCE_SILENT}, 2: {B: Code.SOURCE_SILENT}}
    with Recall(ledger) as recall:
        for attempt in order:
            key = name(100 * attempt)
            recall.request(
                key=key, content=name(7 + attempt), exchange=name(9 + attempt), first=name(10),
                attempt=attempt, at_us=attempt,
            )  # fmt: skip
            told = {kbo: int(code) for kbo, code in codes[attempt].items()}
            recall.outcome(key, attempt, told)
    assert ledger.rows == 1
    names = [(name(200), name(9)), (name(100), name(8))]
    (held,) = ledger.claim([Claim(names, name(99), 0, (A, B), is_to_all=True)], 9)
    assert held == Granted(name(10), 3, (B,), frozenset({B}), {A: int(Code.ANSWERED_WITH_DATA)})
    ledger.close()


def test_a_crash_before_the_record_takes_the_attempt_back(ledger: Ledger) -> None:
    """A name that no log knows is no name to deliver under."""
    ledger.claim([claim(1, 10)], 5)
    assert ledger.resolve(1, {}) == 0
    assert ledger.resolve(0, {}) == 1
    assert ledger.rows == 0
    (held,) = ledger.claim([claim(1, 11)], 6)
    assert granted(held).first == name(11)


def test_what_is_missing_or_of_another_release_is_an_error(tmp_path: Path) -> None:
    """A worker makes none: it could not know what was submitted."""
    with pytest.raises(LedgerError, match="ksz-router run"):
        open_ledger(tmp_path / "ledger")


class Sent(NamedTuple):
    """A delivery that left, as its recipient sees it."""

    exchange: bytes
    is_repeat: bool


class Attempt(NamedTuple):
    """What a worker has in hand between claim and settlement."""

    slot: int
    ticket: int
    exchange: bytes
    held: Granted


OUTCOMES = st.sampled_from(
    sorted(NOT_SENT | UNKNOWN | {Code.ANSWERED_WITH_DATA, Code.SOURCE_FAILED})
)
TICKETS, SLOTS = st.integers(1, 3), st.integers(0, 1)


class Life(RuleBasedStateMachine):
    """Workers that claim, record, send, and are killed between any two steps.

    ``log`` is what is durable; ``sent`` what really left. The recipients' view is the judge.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.number = self.now_us = 0
        self.claimed: list[Attempt] = []
        self.open: list[Attempt] = []
        """Recorded, and so perhaps sent."""
        self.log: list[tuple[Attempt, dict[str, int] | None]] = []
        self.sent: defaultdict[tuple[int, str], list[Sent]] = defaultdict(list)
        self.known: defaultdict[tuple[int, str], Code | None] = defaultdict(lambda: None)
        """What is recorded of a recipient."""
        self.noted: set[tuple[int, str]] = set()
        """Of whom something came that a crash kept from being recorded."""

    @initialize()
    def begin(self) -> None:
        self.ledger = open_ledger(Path(self.folder.name) / "ledger", made=True)

    @rule(slot=SLOTS, ticket=TICKETS, to=st.permutations((A, B, C)), data=st.data())
    def claim(self, slot: int, ticket: int, to: list[str], data: st.DataObject) -> None:
        self.number += 1
        self.now_us += 1
        candidates = tuple(to[: data.draw(st.integers(1, 3))])
        wish = claim(
            ticket, self.number, to=candidates, slot=slot, is_to_all=ticket == 3
        )  # ticket 3 is a distribution's
        (held,) = self.ledger.claim([wish], self.now_us)
        is_open = any(each.ticket == ticket for each in self.claimed + self.open)
        assert (held is Code.SUBMISSION_OPEN) == is_open
        if isinstance(held, Granted):
            self.claimed.append(Attempt(slot, ticket, name(self.number), held))
        elif isinstance(held, Earlier):
            for kbo in candidates if ticket == 3 else ():
                is_known = self.known[ticket, kbo] not in (None, *NOT_SENT, *UNKNOWN)
                assert is_known or (ticket, kbo) in self.noted

    @rule(data=st.data())
    def record_and_send(self, data: st.DataObject) -> None:
        if not self.claimed:
            return
        attempt = data.draw(st.sampled_from(self.claimed))
        self.claimed.remove(attempt)
        self.open.append(attempt)
        self.log.append((attempt, None))
        for kbo in attempt.held.recipients:
            self.sent[attempt.ticket, kbo].append(
                Sent(attempt.held.first, kbo in attempt.held.repeats)
            )
            assert self.known[attempt.ticket, kbo] in (None, *NOT_SENT, *UNKNOWN)
            recorded = {each.exchange for each, _ in self.log}
            assert attempt.held.first in recorded, "it goes out under a name that is in the log"
            self.known[attempt.ticket, kbo] = Code.OUTCOME_UNKNOWN

    @rule(data=st.data(), killed=st.sampled_from(["", "noted", "recorded"]))
    def outcome(self, data: st.DataObject, killed: str) -> None:
        if not self.open:
            return None
        attempt = data.draw(st.sampled_from(self.open))
        codes = {kbo: int(data.draw(OUTCOMES)) for kbo in attempt.held.recipients}
        key = name(attempt.ticket)
        self.ledger.note([Noted(key, attempt.exchange, codes, is_whole=True)])
        if killed == "noted":
            self._take_back(attempt, codes)
            self.noted |= {(attempt.ticket, kbo) for kbo in codes}
            return self.kill(attempt.slot)
        self.open.remove(attempt)
        self.log.append((attempt, codes))
        self._take_back(attempt, codes)
        self.known |= {(attempt.ticket, kbo): Code(code) for kbo, code in codes.items()}
        if killed == "recorded":
            return self.kill(attempt.slot)
        self.ledger.settle([(key, attempt.exchange)])
        return None

    def _take_back(self, attempt: Attempt, codes: dict[str, int]) -> None:
        for kbo, code in codes.items():
            if code in NOT_SENT:
                self.sent[attempt.ticket, kbo].pop()

    @rule(slot=SLOTS)
    def kill(self, slot: int) -> None:
        left = {each.exchange: each.held.recipients for each in self.open if each.slot == slot}
        self.ledger.resolve(slot, left)
        self.claimed = [each for each in self.claimed if each.slot != slot]
        self.open = [each for each in self.open if each.slot != slot]

    @rule(order=st.permutations((0, 1)))
    def cut_power(self, order: list[int]) -> None:
        """Memory is gone; the log is read one writer after the other."""
        self.ledger.close()
        self.number += 1
        self.ledger = open_ledger(Path(self.folder.name) / f"ledger-{self.number}", made=True)
        ended = {attempt.exchange for attempt, codes in self.log if codes is not None}
        with Recall(self.ledger) as recall:
            for slot in order:
                for attempt, codes in self.log:
                    if attempt.slot != slot:
                        continue
                    if codes is not None:
                        recall.outcome(name(attempt.ticket), attempt.held.attempt, codes)
                        continue
                    recall.request(
                        key=name(attempt.ticket), content=name(7), exchange=attempt.exchange,
                        first=attempt.held.first, attempt=attempt.held.attempt, at_us=1,
                    )  # fmt: skip
                    if attempt.exchange not in ended:
                        lost = dict.fromkeys(attempt.held.recipients, int(Code.OUTCOME_UNKNOWN))
                        recall.outcome(name(attempt.ticket), attempt.held.attempt, lost)
        self.claimed.clear()
        self.open.clear()

    @invariant()
    def each_recipient_is_told_what_is_a_repeat(self) -> None:
        """At most one delivery to each is no repeat, it is the first, and all have one name."""
        for (ticket, kbo), sent in self.sent.items():
            assert not any(not delivery.is_repeat for delivery in sent[1:]), (ticket, kbo)
        for ticket in (1, 2, 3):
            reached = [kbo for kbo in (A, B, C) if self.sent[ticket, kbo]]
            assert len(reached) <= 1 or ticket == 3, "a submission has one recipient"
            names = {each.exchange for kbo in reached for each in self.sent[ticket, kbo]}
            assert len(names) <= 1

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
