"""The rules of a change, pure, against a model in which a line is a set of days."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ksz_router.directory.applying import applied
from ksz_router.directory.change import (
    ANY,
    LINE_OPERATIONS,
    REGISTER_OPERATIONS,
    Change,
    Operation,
    Reason,
    Refused,
    malformed,
)
from ksz_router.directory.packing import Record, order
from ksz_router.limits import person_lines_max, person_numbers_max, person_role_lines_max
from ksz_router.model import ANY_TYPE, OPEN, PROVISIONAL, Line, NumberStatus
from tests.directory_files import A, B, C, D, number
from tests.directory_model import NUMBERS, TODAY, Model, changes, seen_in

Records = dict[str, Record]


def family_of(records: Records, *numbers: str) -> Records:
    """What the writer hands to the rules."""
    found: Records = {}
    for insz in filter(None, numbers):
        if insz in records:
            found[insz] = records[insz]
            found.update({other: records[other] for other in records[insz].others})
    return found


def step(records: Records, change: Change, today: int = TODAY) -> Reason | None:
    """Apply a change to records; say what it breaks."""
    assert malformed(change) is None
    result = applied(family_of(records, change.number, change.other), change, today)
    if isinstance(result, Refused):
        return result.reason
    records.update(result)
    return None


@settings(max_examples=400)
@given(st.lists(changes(), min_size=10, max_size=40))
def test_any_changes_do_what_the_model_does(asked: list[Change]) -> None:
    """Applied where the model applies, refused with a rule that the model finds broken."""
    records: Records = {}
    model = Model()
    known = [Change(b"\0" * 16, n, Operation.NEW_NUMBER) for n in NUMBERS[:2]]
    for today, change in enumerate((*known, *asked), start=TODAY):
        reason, broken = step(records, change, today), model.broken(change)
        assert (reason in broken) if broken else reason is None
        if reason is None:
            model.apply(change, today)
        assert seen_in(records) == model.seen()
        for record in records.values():
            assert list(record.lines) == sorted(record.lines, key=order)


def a_line(capacity: int = 2, begin: int = 20240101, end: int = OPEN, phase: int = 1) -> Line:
    return Line(17, 1, capacity, phase, begin, end)


def asked(operation: Operation, insz: str = A, line: Line | None = None, **more: object) -> Change:
    return Change(b"x" * 16, insz, operation, line, **more)  # type: ignore[arg-type]


def test_an_inscription_under_a_replaced_number_is_put_under_the_one_in_use() -> None:
    """And what stood under the old one stays there: each number finds both."""
    records = {A: Record(status=NumberStatus.ACTIVE), B: Record(status=NumberStatus.ACTIVE)}
    step(records, asked(Operation.INSCRIBE, A, a_line(1)))
    step(records, asked(Operation.REPLACE, A, other=B))
    assert step(records, asked(Operation.INSCRIBE, A, a_line(2))) is None
    assert [line.capacity for line in records[A].lines] == [1]
    assert [line.capacity for line in records[B].lines] == [2]
    assert step(records, asked(Operation.INSCRIBE, B, a_line(1))) is Reason.OVERLAPS
    assert step(records, asked(Operation.REMOVE_CAPACITY, B, a_line(1, phase=ANY))) is None
    assert records[A].lines == ()


def test_a_chain_of_replacements_names_the_whole_family() -> None:
    """The number in use first; a circle is refused from any of its numbers."""
    records = {n: Record(status=NumberStatus.ACTIVE) for n in (A, B, C, D)}
    for former, later in ((A, B), (B, C), (D, A)):
        assert step(records, asked(Operation.REPLACE, former, other=later)) is None
    assert all({n, *record.others} == {A, B, C, D} for n, record in records.items())
    assert [records[n].others[0] for n in (A, B, D)] == [C, C, C]
    for member in (A, B, C, D):
        assert step(records, asked(Operation.REPLACE, C, other=member)) is Reason.CIRCLE


def test_a_death_is_not_forgotten_with_a_number_and_a_mistake_is_undone() -> None:
    """Replaced after a death: the number in use is that of a dead person. Then it was none."""
    records = {n: Record(status=NumberStatus.ACTIVE) for n in (A, B)}
    step(records, asked(Operation.DECEASE, A, day=20240105))
    step(records, asked(Operation.REPLACE, A, other=B))
    assert (records[B].status, records[B].deceased) == (NumberStatus.DECEASED, 20240105)
    assert (records[A].status, records[A].deceased) == (NumberStatus.REPLACED, 0)
    step(records, asked(Operation.REACTIVATE, A))
    step(records, asked(Operation.REACTIVATE, B))
    assert [records[n] for n in (A, B)] == [Record(status=NumberStatus.ACTIVE)] * 2


def test_a_definitive_inscription_takes_the_days_of_the_provisional_one() -> None:
    """Those and no others; and a provisional one beside it is refused."""
    records = {A: Record(status=NumberStatus.ACTIVE)}
    step(records, asked(Operation.INSCRIBE, A, a_line(PROVISIONAL)))
    assert step(records, asked(Operation.INSCRIBE, A, a_line(2, 20240201, 20240229))) is None
    periods = [(line.capacity, line.begin, line.end) for line in records[A].lines]
    assert periods == [
        (2, 20240201, 20240229),
        (PROVISIONAL, 20240101, 20240131),
        (PROVISIONAL, 20240301, OPEN),
    ]
    again = asked(Operation.INSCRIBE, A, a_line(PROVISIONAL, 20240229, 20240229))
    assert step(records, again) is Reason.DEFINITIVE_ALREADY


def test_the_bounds_of_a_person_hold() -> None:
    """As many numbers and lines as limits.py says, and not one more."""
    numbers = [number(counter) for counter in range(100, 101 + person_numbers_max)]
    records = {n: Record(status=NumberStatus.ACTIVE) for n in numbers}
    for former, later in pairwise(numbers[:-1]):
        assert step(records, asked(Operation.REPLACE, former, other=later)) is None
    *_, current, last = numbers
    refused = step(records, asked(Operation.REPLACE, current, other=last))
    assert refused is Reason.TOO_MANY_NUMBERS

    lines = tuple(Line(18 + n // 1000, 0, 2, 0, 18000101, 0) for n in range(person_lines_max))
    full = {A: Record(status=NumberStatus.ACTIVE, lines=lines)}
    assert step(full, asked(Operation.INSCRIBE, A, a_line(3))) is Reason.TOO_MANY_LINES
    full = {A: Record(status=NumberStatus.ACTIVE, lines=lines[1:])}
    assert step(full, asked(Operation.INSCRIBE, A, a_line(3))) is None


def test_a_role_cannot_take_the_room_of_others() -> None:
    """It may have a quarter of the lines; what it has can be adjusted, and others go on."""
    others = (Line(18, 0, 2, 0, 20240101, OPEN),)
    own = (
        a_line(3, 20240101, 20240131),
        *(a_line(4) for _ in range(person_role_lines_max - 1)),
    )
    full = {A: Record(status=NumberStatus.ACTIVE, lines=own + others)}
    split = asked(Operation.REMOVE_PERIOD, A, a_line(3, 20240110, 20240110))
    assert step(full, split) is Reason.TOO_MANY_LINES
    inscribed = asked(Operation.INSCRIBE, A, a_line(5))
    assert step(full, inscribed) is Reason.TOO_MANY_LINES
    assert step(full, asked(Operation.ADJUST, A, a_line(3, 20240101, 20240130))) is None
    other_role = asked(Operation.INSCRIBE, A, Line(18, 0, 3, 1, 20240101, OPEN))
    assert step(full, other_role) is None
    assert step(full, asked(Operation.REMOVE_LINE, A, a_line(3, 20240101))) is None
    assert step(full, inscribed) is None


def test_what_a_load_brought_of_a_role_can_be_mended_and_does_not_grow() -> None:
    """A load knows no bound of roles: it would be no use to refuse what takes away."""
    own = (a_line(3), *(a_line(4) for _ in range(person_role_lines_max + 1)))
    full = {A: Record(status=NumberStatus.ACTIVE, lines=own)}
    assert step(full, asked(Operation.ADJUST, A, a_line(3, 20240101, 20240130))) is None
    assert step(full, asked(Operation.INSCRIBE, A, a_line(5))) is Reason.TOO_MANY_LINES
    assert step(full, asked(Operation.REMOVE_CAPACITY, A, a_line(3))) is None
    assert step(full, asked(Operation.INSCRIBE, A, a_line(5))) is Reason.TOO_MANY_LINES


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (asked(Operation.INSCRIBE, "85073099735", a_line()), Reason.NUMBER_MALFORMED),
        (asked(Operation.REPLACE, A, other="1"), Reason.NUMBER_MALFORMED),
        (asked(Operation.INSCRIBE), Reason.LINE_MALFORMED),
        (asked(Operation.INSCRIBE, A, a_line(901)), Reason.LINE_MALFORMED),
        (asked(Operation.INSCRIBE, A, a_line(999)), Reason.LINE_MALFORMED),
        (asked(Operation.INSCRIBE, A, a_line(ANY)), Reason.LINE_MALFORMED),
        (asked(Operation.ADJUST, A, a_line(phase=ANY)), Reason.LINE_MALFORMED),
        (asked(Operation.INSCRIBE, A, a_line(begin=20240230)), Reason.LINE_MALFORMED),
        (asked(Operation.INSCRIBE, A, a_line(end=20231231)), Reason.LINE_MALFORMED),
        (asked(Operation.REMOVE_LINE, A, a_line(begin=0)), Reason.LINE_MALFORMED),
        (asked(Operation.REMOVE_ALL, A, Line(1000, 1, 0, 0, 0, 0)), Reason.LINE_MALFORMED),
        (asked(Operation.REMOVE_ALL, A, Line(17, -2, 0, 0, 0, 0)), Reason.LINE_MALFORMED),
        (asked(Operation.DECEASE, A, day=20240230), Reason.CHANGE_MALFORMED),
        (asked(Operation.LOADED), Reason.CHANGE_MALFORMED),
        (Change(b"short", A, Operation.NEW_NUMBER), Reason.CHANGE_MALFORMED),
        (asked(Operation.REMOVE_ALL, A, Line(17, ANY_TYPE, ANY, ANY, 0, 0)), None),
        (asked(Operation.REMOVE_PERIOD, A, a_line(ANY, phase=ANY)), None),
    ],
)
def test_a_change_that_is_not_well_formed_is_named_so(
    change: Change, reason: Reason | None
) -> None:
    """Before the directory is asked."""
    assert malformed(change) is reason


def test_every_operation_is_of_lines_or_of_the_register_or_made_here() -> None:
    """And no text of a change or a refusal names a person."""
    assert {*LINE_OPERATIONS, *REGISTER_OPERATIONS, Operation.LOADED, Operation.RESTORED} == {
        *Operation
    }
    assert A not in repr(asked(Operation.CANCEL))
    assert Refused(Reason.OVERLAPS).why


@pytest.mark.parametrize("operation", [Operation.ADJUST, Operation.REMOVE_LINE])
@pytest.mark.parametrize(
    ("named", "holds", "taken"), [(A, (A, B), A), (C, (D, B), B), (C, (A, D), D)]
)
def test_of_two_equal_lines_the_one_under_the_number_that_is_named_is_meant(
    operation: Operation, named: str, holds: tuple[str, ...], taken: str
) -> None:
    """Else the one under the number in use, B; else under the lowest: never by chance."""
    records: Records = {}
    for insz in (D, C, B, A):
        assert step(records, asked(Operation.NEW_NUMBER, insz)) is None
    for insz in holds:
        assert step(records, asked(Operation.INSCRIBE, insz, a_line())) is None
    for insz in (A, C, D):
        assert step(records, asked(Operation.REPLACE, insz, other=B)) is None
    is_moved = operation is Operation.ADJUST
    line = a_line(begin=20010101, end=20011231) if is_moved else a_line()
    assert step(records, asked(operation, named, line, line_begin=20240101)) is None
    left = {insz for insz in holds if any(n.begin == 20240101 for n in records[insz].lines)}
    assert left == set(holds) - {taken}
    assert [n.begin for n in records[taken].lines] == [20010101] * is_moved
