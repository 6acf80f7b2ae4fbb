"""Lines stay packed until those of some roles are asked for: the same as all, sifted."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ksz_router.model import ANY_TYPE, OPEN, Line, NumberStatus
from ksz_router.persons import LINE_BYTES, Person, pack_lines, packed_role, unpack_lines

small = st.integers(0, 3)
"""So that one field often looks like another."""
lines = st.lists(
    st.builds(
        Line, small, st.sampled_from([ANY_TYPE, 0, 1, 2, 3]), small, small, small, small, small
    ),
    max_size=12,
)


def person(*held: Line) -> Person:
    return Person(NumberStatus.ACTIVE, "85073099734", NumberStatus.ACTIVE, pack_lines(held))


@given(lines, small, st.sampled_from([ANY_TYPE, 0, 1, 2, 3]))
@example([Line(1, 1, 17, 1, 0, 0), Line(17, 1, 1, 1, 1, 1)], 17, 1)  # a capacity and a phase
@example([Line(0, 0, 0, 0, 0, 0)] * 3, 0, 0)  # it begins like a role at every byte
def test_lines_under_a_role_are_those_of_all_that_fit_it(
    held: list[Line], sector: int, kind: int
) -> None:
    """In their order, those of any type of the sector included."""
    fitting = [row for row in held if row.sector == sector and row.type in (kind, ANY_TYPE)]
    assert person(*held).under(packed_role(sector, kind)) == fitting


@given(lines, st.sets(st.tuples(small, small), max_size=3))
def test_lines_under_several_roles_keep_their_order(
    held: list[Line], roles: set[tuple[int, int]]
) -> None:
    """As a managing institution holds them, of which there may be more than one."""
    begun = {one for role in roles for one in packed_role(*role)}
    fitting = [
        row for row in held
        if any(row.sector == sector and row.type in (kind, ANY_TYPE) for sector, kind in roles)
    ]  # fmt: skip
    assert person(*held).under(tuple(sorted(begun))) == fitting


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
