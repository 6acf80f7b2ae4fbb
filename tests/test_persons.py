"""Lines stay packed until those that fit are asked for: the same as all, sifted."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ksz_router.model import ANY_TYPE, OPEN, PROVISIONAL, Line, NumberStatus, Role
from ksz_router.persons import LINE_BYTES, Person, fitting, pack_lines, unpack_lines

small = st.integers(0, 3)
"""So that one field often looks like another."""
sectors = small | st.sampled_from([256, 257, 514])
"""Some of which differ in their upper byte alone."""
types = st.sampled_from([ANY_TYPE, 0, 1, 2, 3])
codes = st.sampled_from([0, 1, 2, 3, 257, PROVISIONAL])
lines = st.lists(st.builds(Line, sectors, types, codes, small, small, small, small), max_size=12)
capacities = st.tuples(st.none() | st.frozensets(codes, max_size=3), st.booleans())
"""None is any, and then the second says whether a provisional one counts."""

bounds = st.tuples(small, small, small)
"""The phase that is enough, and the period."""
ANY_DAY = (0, 0, OPEN)


def person(*held: Line) -> Person:
    return Person(NumberStatus.ACTIVE, "85073099734", NumberStatus.ACTIVE, pack_lines(held))


@given(lines, st.lists(st.builds(Role, sectors, types), max_size=3), capacities, bounds)
@example([Line(1, 1, 17, 1, 0, 0), Line(17, 1, 1, 1, 1, 1)], [Role(17, 1)], (None, False), ANY_DAY)
@example([Line(257, 0, 1, 0, 0, 0), Line(1, 0, 1, 0, 0, 0)], [Role(1, 0)], (None, False), ANY_DAY)
@example([Line(1, 0, PROVISIONAL, 0, 0, 0)], [Role(1, 0)], (frozenset(), True), ANY_DAY)
@example([Line(0, 0, 0, 0, 0, 0)] * 3, [], (None, True), ANY_DAY)
def test_lines_that_fit_are_those_of_all_that_do(
    held: list[Line],
    roles: list[Role],
    asked: tuple[frozenset[int] | None, bool],
    bounds: tuple[int, int, int],
) -> None:
    """In their order, of one role or of several, those of any type of their sectors included."""
    (codes, provisional), (phase, begin, end) = asked, bounds
    fit = [
        row for row in held
        if any(row.sector == role.sector and row.type in (role.type, ANY_TYPE) for role in roles)
        and (codes is None or row.capacity in codes)
        and (codes is not None or provisional or row.capacity != PROVISIONAL)
        and row.phase >= phase
        and not (row.begin > end or row.end < begin)
    ]  # fmt: skip
    wanted = fitting(tuple(roles), codes, provisional=provisional)
    assert person(*held).fitting(wanted, phase, begin, end) == fit


@given(lines)
def test_packed_lines_are_the_lines(held: list[Line]) -> None:
    """Each of twenty bytes, in the order given."""
    packed = pack_lines(held)
    assert list(unpack_lines(packed)) == held == list(person(*held).lines)
    assert person(*held).lines_count == len(packed) // LINE_BYTES == len(held)


def test_a_line_that_is_cut_off_is_no_line() -> None:
    """It is not left out in silence."""
    with pytest.raises(struct.error):
        unpack_lines(pack_lines([Line(17, 1, 2, 1, 20260101, OPEN)])[:-1])


def test_a_person_is_printed_without_what_the_directory_says() -> None:
    """A repr may come into a log line."""
    assert repr(person(Line(17, 1, 2, 1, 20260101, OPEN))) == "Person(ACTIVE, lines=1)"
