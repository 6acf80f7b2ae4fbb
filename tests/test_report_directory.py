"""The figures of a directory for a quarter: columns against plain Python, and how days count."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from ksz_router.directory.packing import DamagedError, DirectoryError, Record, order, pack, pack_key
from ksz_router.directory.scan import Item
from ksz_router.model import ANY_TYPE, OPEN, Line, NumberStatus, Role
from ksz_router.report import directory_kinds
from ksz_router.report.directory_figures import QUARTERS, Count, Figures
from ksz_router.report.directory_findings import CONTRADICTORY, Finding, Terms, years_before
from ksz_router.report.directory_kinds import LineKind
from ksz_router.report.directory_lines import Ints
from ksz_router.report.directory_persons import Persons, read_persons
from ksz_router.report.quarter import Quarter
from tests import directory_population as model
from tests.directory_population import One, populations

QUARTER = Quarter(2026, 3)


def _nobody(_: memoryview) -> None:
    """Finds no other number: nobody has one."""


class Heard:
    """What a listing hears, as plain values."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, LineKind, int, set[Finding]]] = []

    def take(self, persons: Persons, kind: Ints, kinds: Sequence[LineKind], flags: Ints) -> None:
        for row, place in enumerate(kind.tolist()):
            found = {each for each in Finding if int(flags[row]) >> each & 1}
            begin = int(persons.lines.begin[row])
            self.rows.append((f"{persons.under[row]:011}", kinds[place], begin, found))


def items_of(population: Sequence[One]) -> dict[bytes, memoryview]:
    """The keys and values of the directory that holds these persons, in order."""
    records = dict(record for one in population for record in one.records())
    return {pack_key(key): memoryview(pack(records[key])) for key in sorted(records)}


def count(population: Sequence[One], batch: int = 3) -> tuple[Figures, Heard]:
    heard = Heard()
    counting = Count(QUARTER, Terms(), frozenset(), heard)
    values = items_of(population)
    items: list[Item] = [(memoryview(key), value) for key, value in values.items()]
    for at in range(0, len(items), batch):
        counting.add(*read_persons(items[at : at + batch], lambda key: values.get(bytes(key))))
    return counting.figures(1), heard


def one(*lines: Line, status: NumberStatus = NumberStatus.ACTIVE, deceased: int = 0) -> One:
    return One(status, deceased, (model.number(2),), (tuple(sorted(lines, key=order)),))


@given(populations(), st.integers(1, 7))
def test_lines_are_counted_as_plain_python_counts_them(population: list[One], batch: int) -> None:
    """By quarter and kind what was in force, begun, ended and changed; and every line once."""
    figures, _ = count(population, batch)
    assert [str(quarter) for quarter in figures.quarters] == list(model.QUARTERS)
    found: Counter[tuple[str, str, int, int, int]] = Counter()
    for span, quarter in enumerate(model.QUARTERS, start=1):
        for what, counts in (
            ("in_force_at_begin", figures.in_force(span - 1)),
            ("inscribed", figures.inscribed(span)),
            ("ended", figures.ended(span)),
            ("in_force_at_end", figures.in_force(span)),
            ("changed", figures.changed[:, span]),
        ):
            for kind, lines in zip(figures.kinds, counts.tolist(), strict=True):
                found[quarter, what, *kind] += lines
    assert +found == model.flows(population)
    assert figures.periods.sum() == sum(len(lines) for each in population for lines in each.lines)


@given(populations(), st.integers(1, 7))
def test_sectors_of_a_person_are_counted_over_all_numbers(
    population: list[One], batch: int
) -> None:
    """At the end of each quarter, and by how many for the last."""
    figures, _ = count(population, batch)
    ends = [20240930, *(last for _, last in model.DAYS.values())]
    for q, day in enumerate(ends):
        sets = [model.sectors_of(each, day) for each in population]
        assert figures.memberships[q] == sum(map(len, sets))
        assert figures.known[q] == sum(map(bool, sets))
    expected = Counter(
        (each.status, len(model.sectors_of(each, model.LAST))) for each in population
    )
    places = zip(*np.nonzero(figures.sectors), strict=True)
    assert {(int(s), int(n)): int(figures.sectors[s, n]) for s, n in places} == expected


@given(populations(), st.integers(1, 7))
@example([one(Line(17, 1, 902, 1, 20260702, OPEN))], 1)
@example([one(Line(17, 1, 902, 1, 20260701, OPEN))], 1)
@example([one(Line(5, 0, 20, 1, 20100101, 20160930), Line(5, 0, 10, 1, 20100101, 20160929))], 1)
def test_findings_are_those_of_plain_python(population: list[One], batch: int) -> None:
    """Of every line, whatever the batches; and the counts are the sums of them."""
    figures, heard = count(population, batch)
    plain = [found for each in population for found in model.findings(each)]
    expected = sorted(
        (under, LineKind(line.sector, line.type, line.capacity), line.begin, sorted(wrong))
        for under, line, wrong in plain
    )
    assert sorted((*row[:3], sorted(row[3])) for row in heard.rows) == expected
    for finding in Finding:
        assert figures.findings[finding].sum() == sum(finding in each for *_, each in plain)
    assert figures.to_look_at.sum() == sum(bool(wrong) for *_, wrong in plain)
    grave = [{each for each in wrong if CONTRADICTORY >> each & 1} for *_, wrong in plain]
    assert figures.contradictory.sum() == sum(map(bool, grave))


def test_every_finding_is_among_the_cases_drawn() -> None:
    """The property above is not vacuous: each comes up, and not in every line."""
    met: Counter[Finding] = Counter()
    lines = 0

    @settings(max_examples=100, phases=[Phase.generate])
    @given(populations())
    def draw(population: list[One]) -> None:
        nonlocal lines
        for each in population:
            found = model.findings(each)
            lines += len(found)
            met.update(finding for *_, wrong in found for finding in wrong)

    draw()
    assert set(met) == set(Finding)
    assert max(met.values()) < lines


@given(populations())
def test_numbers_are_counted_by_status_and_kind(population: list[One]) -> None:
    """A number whose month is raised by 20 or 40 is a BIS number."""
    figures, _ = count(population)
    expected: Counter[tuple[int, int]] = Counter()
    for each in population:
        for place, number in enumerate(each.numbers):
            status = NumberStatus.REPLACED if place else each.status
            expected[status, {"0": 0, "2": 1, "4": 2}[number[2]]] += 1
    places = zip(*np.nonzero(figures.numbers), strict=True)
    assert {(int(s), int(k)): int(figures.numbers[s, k]) for s, k in places} == expected
    died = sum(each.deceased == 20260930 for each in population)
    assert figures.deaths[QUARTERS] == died


def test_a_value_that_the_directory_does_not_write_is_an_error() -> None:
    """And never a smaller count."""
    whole = pack(Record(status=NumberStatus.ACTIVE, lines=(Line(17, 1, 2, 1, 20150101, OPEN),)))
    key = memoryview(pack_key(model.number(2)))
    odd = bytearray(whole)
    odd[6:8] = (1_000).to_bytes(2, "little")
    alone = Record(status=NumberStatus.ACTIVE, others=(model.number(3),))
    for value in (whole[:-1], whole[:4], b"\x04" + whole[1:], b"\x01" + whole[1:], bytes(odd),
                  pack(alone)):  # fmt: skip
        with pytest.raises(DamagedError):
            read_persons([(key, memoryview(value))], _nobody)
    read_persons([(key, memoryview(whole))], _nobody)


def test_kinds_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stands in the lines, the counts stay small."""
    monkeypatch.setattr(directory_kinds, "KINDS_MAX", 2)
    files = [Line(17, 1, capacity, 1, 20150101, OPEN) for capacity in (1, 2, 3)]
    count([one(*files[:2])])
    with pytest.raises(DirectoryError, match="more than 2 different"):
        count([one(*files)])


def test_a_role_of_the_rulebook_is_known_beside_the_official_ones() -> None:
    """A new sector is no mistake of who uses it."""
    lines = [Line(998, 1, 0, 1, 20150101, OPEN, 20260101)]
    for roles, expected in ((frozenset[Role](), 1), (frozenset({Role(998, 1)}), 0)):
        counting = Count(QUARTER, Terms(), roles, None)
        values = items_of([one(*lines)])
        counting.add(*read_persons([(memoryview(k), v) for k, v in values.items()], _nobody))
        assert counting.figures(1).findings[Finding.UNKNOWN_CODE].sum() == expected


def test_terms_say_how_long_is_too_long() -> None:
    """A day more or less decides."""
    lines = [Line(17, 1, 902, 1, 20260829, OPEN), Line(18, 0, 1, 1, 20210929, OPEN),
             Line(5, 0, 20, 1, 20210101, 20210929)]  # fmt: skip
    values = items_of([one(*lines)])
    for terms, expected in ((Terms(32, 5, 5), 0), (Terms(31, 5, 5), 1)):
        counting = Count(QUARTER, terms, frozenset(), None)
        counting.add(*read_persons([(memoryview(k), v) for k, v in values.items()], _nobody))
        found = counting.figures(1).findings.sum(axis=1)
        assert found[Finding.PROVISIONAL_TOO_LONG] == expected
        assert found[[Finding.UNCHANGED, Finding.EXPIRED]].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026Q3", 20260701, 20260930), ("2024Q1", 20240101, 20240331),
        ("1999Q4", 19991001, 19991231), ("2026Q2", 20260401, 20260630),
    ],
)  # fmt: skip
def test_a_quarter_has_its_days(text: str, first: int, last: int) -> None:
    """And is written as it is read."""
    quarter = Quarter.parse(text)
    assert (str(quarter), quarter.first, quarter.last) == (text, first, last)
    assert quarter.before(4) == Quarter(quarter.year - 1, quarter.number)
    assert quarter.before(1).before(-1) == quarter


@pytest.mark.parametrize(
    "text", ["2026q3", "2026Q0", "2026Q5", "2026-Q3", "1026Q3", "", "2026Q3\n"]
)
def test_what_is_no_quarter_is_refused(text: str) -> None:
    """With how one is written."""
    with pytest.raises(ValueError, match="2026Q3"):
        Quarter.parse(text)


def test_years_before_a_leap_day_is_a_day() -> None:
    """The 29th of February has no birthday in most years."""
    assert years_before(20240229, 1) == 20230228
    assert years_before(20240331, 10) == 20140331
    assert ANY_TYPE < 0
