"""Persons who do not exist: always the same ones, loadable, and with the properties promised."""

import io
from itertools import pairwise
from pathlib import Path

import pytest

from ksz_router import official
from ksz_router.days import covers, next_day
from ksz_router.directory import Directory
from ksz_router.directory.check import check
from ksz_router.directory.loader import load
from ksz_router.directory.synthesise import PERSONS_MIN, landmarks, write_csv, write_parquet
from ksz_router.identifiers import is_insz
from ksz_router.model import ANY_TYPE, OPEN, PROVISIONAL, NumberStatus
from ksz_router.persons import Person

SEED = 7
PERSONS = 3_000


def text_of(persons: int, seed: int) -> str:
    stream = io.StringIO()
    write_csv(stream, persons=persons, seed=seed)
    return stream.getvalue()


@pytest.fixture(scope="module")
def rows() -> list[list[str]]:
    return [row.split(",") for row in text_of(PERSONS, SEED).splitlines()[2:]]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Person | None]:
    """The landmarks, looked up in a directory that was loaded from the file."""
    place = tmp_path_factory.mktemp("synthetic")
    file = place / "persons.csv"
    file.write_text(text_of(PERSONS, SEED), encoding="ascii")
    load(file, place / "directory")
    assert check(place / "directory") == []
    directory = Directory.open(place / "directory")
    marks = landmarks(SEED)
    found = dict(zip(marks, directory.look_up(list(marks.values())), strict=True))
    directory.close()
    return found


def known(person: Person | None, sector: int, capacity: int) -> list[tuple[int, int]]:
    """The periods in which a sector knows the person in a capacity and phase 1 at least."""
    assert person is not None
    return [
        (line.begin, line.end)
        for line in person.lines
        if (line.sector, line.capacity) == (sector, capacity) and line.phase >= 1
    ]


def is_open(person: Person | None, sector: int, capacity: int) -> bool:
    return covers(known(person, sector, capacity), 20200101, OPEN)


def test_the_same_seed_gives_the_same_file() -> None:
    """And another seed or count another one."""
    assert text_of(200, 1) == text_of(200, 1)
    assert len({text_of(200, 1), text_of(200, 2), text_of(201, 1)}) == 3


def test_the_landmarks_do_not_depend_on_the_count_of_persons() -> None:
    """They are the first rows of every file of the seed."""
    small, large = text_of(PERSONS_MIN, SEED), text_of(500, SEED)
    assert large.partition("\n")[2].startswith(small.partition("\n")[2])


def test_every_number_is_well_formed_and_given_out_once(rows: list[list[str]]) -> None:
    """Both centuries, both kinds of BIS numbers, counters that are practically never used."""
    numbers = [row[0] for row in rows if row[1]]
    assert all(map(is_insz, numbers))
    assert len(set(numbers)) == len(numbers) > PERSONS
    assert {number[6:9] for number in numbers} == {"998"}
    assert {int(number[2]) // 2 for number in numbers} == {0, 1, 2}
    late = {97 - int(number[:9]) % 97 != int(number[9:]) for number in numbers}
    assert late == {True, False}


def test_every_line_has_official_codes(rows: list[list[str]]) -> None:
    """Sector, institution type and capacity are on the KSZ's lists."""
    files = {tuple(row[4:7]) for row in rows if not row[1]}
    for sector, kind, capacity in files:
        assert official.is_role(int(sector), int(kind or 0))
        assert official.is_capacity(int(sector), int(capacity))


def test_the_file_is_as_varied_as_a_real_one(rows: list[list[str]]) -> None:
    """Some ten lines a person; open and closed, untyped, provisional; all states of a number."""
    lines = [row for row in rows if not row[1]]
    states = [row[1] for row in rows if row[1]]
    assert 9.5 <= len(lines) / PERSONS <= 10.5
    assert {"active", "replaced", "cancelled", "deceased"} == set(states)
    assert states.count("active") > len(states) * 0.6
    assert 0.1 < sum(number[2] in "2345" for number, *_ in rows) / len(rows) < 0.3, "BIS numbers"
    for column, value in ((5, ""), (6, str(PROVISIONAL)), (9, "")):
        share = sum(row[column] == value for row in lines) / len(lines)
        assert 0.001 < share < 0.9
    targets = {row[2] for row in rows if row[2]}
    assert any(row[1] == "replaced" and row[0] in targets for row in rows), "a chain of two"


def test_lives_fit_their_dates(rows: list[list[str]]) -> None:
    """Nothing begins before birth, of the dead hardly anything goes on; periods join or not."""
    dead = {row[0]: row[3] for row in rows if row[3]}
    born: dict[str, int] = {}
    for insz in {row[0] for row in rows[200:] if not row[1]}:
        late = int("2" + insz[:9]) % 97 + int(insz[9:]) == 97
        born[insz] = (2000 if late else 1900) + int(insz[:2])
    assert all(int(row[8][:4]) >= born[row[0]] for row in rows if row[0] in born and row[8])
    of_dead = [row[9] > dead[row[0]] or not row[9] for row in rows if row[8] and row[0] in dead]
    assert 0 < sum(of_dead) / len(of_dead) < 0.1, "somebody forgot to close a line"
    neighbours = [
        (before[9], after[8])
        for before, after in pairwise(rows)
        if after[0] == before[0] and after[4:7] == before[4:7] and before[9] and after[8]
    ]
    joined = sum(
        next_day(int(end.replace("-", ""))) == int(begin.replace("-", ""))
        for end, begin in neighbours
    )
    assert 0.2 < joined / len(neighbours) < 0.8


def test_a_line_may_stand_under_two_numbers_of_one_person(rows: list[list[str]]) -> None:
    """Institutions inscribe whom they have under one number already under the other, too."""
    current = {row[0]: row[2] for row in rows if row[2]}
    under = {(row[0], *row[4:]) for row in rows if not row[1]}
    doubled = [row for row in under if (current.get(row[0], ""), *row[1:]) in under]
    assert doubled


def test_parquet_holds_the_same_rows(tmp_path: Path) -> None:
    """And loads into the same directory."""
    (tmp_path / "persons.csv").write_text(text_of(300, SEED))
    write_parquet(tmp_path / "persons.parquet", persons=300, seed=SEED)
    for suffix in ("csv", "parquet"):
        load(tmp_path / f"persons.{suffix}", tmp_path / suffix)
    numbers = [row.split(",")[0] for row in text_of(300, SEED).splitlines()[2:]]
    csv, parquet = (Directory.open(tmp_path / suffix) for suffix in ("csv", "parquet"))
    assert csv.look_up(numbers) == parquet.look_up(numbers)
    assert csv.lines_count == parquet.lines_count > 2_000
    csv.close()
    parquet.close()


def test_who_is_answered_is_known_to_all(people: dict[str, Person | None]) -> None:
    """The one that every demonstration asks about."""
    for name in ("answered", "any_type", "replaced", "chain_first", "adjacent", "bis"):
        person = people[name]
        assert is_open(person, 17, 2)
        assert is_open(person, 18, 1)
        assert is_open(person, 12, 10)
        assert is_open(person, 11, 1)
        assert is_open(person, 16, 1)


def test_the_others_differ_in_what_their_name_says(people: dict[str, Person | None]) -> None:
    """One landmark for each refusal of the control that concerns a person."""
    marks = landmarks(SEED)
    assert people["unknown"] is None
    for name in ("cancelled", "deceased"):
        person = people[name]
        assert person is not None
        assert person.status is NumberStatus[name.upper()]
        assert is_open(person, 17, 2)
    for name, current in (
        ("replaced", "replacement"), ("chain_first", "chain_last"), ("chain_second", "chain_last"),
    ):  # fmt: skip
        person = people[name]
        assert person is not None
        assert (person.status, person.current) == (NumberStatus.REPLACED, marks[current])
        assert person.current_status is NumberStatus.ACTIVE
    assert known(people["not_integrated"], 17, 2) == []
    assert known(people["phase_too_low"], 17, 2) == []
    assert known(people["period_not_covered"], 17, 2) == [(20150101, 20191231)]
    assert known(people["provisional"], 17, 2) == []
    assert is_open(people["provisional"], 17, PROVISIONAL)
    assert len(known(people["adjacent"], 17, 2)) == 2
    untyped, lonely = people["any_type"], people["no_source"]
    assert untyped is not None
    assert {line.type for line in untyped.lines if line.sector == 17} == {ANY_TYPE}
    assert lonely is not None
    assert {line.sector for line in lonely.lines} == {17}


def test_too_few_persons_are_refused() -> None:
    """The landmarks must all be there."""
    with pytest.raises(ValueError, match="persons"):
        text_of(PERSONS_MIN - 1, 1)


def test_a_file_says_that_it_is_synthetic(tmp_path: Path) -> None:
    """In its first line, where whoever finds it looks."""
    assert text_of(PERSONS_MIN, 1).startswith("# SYNTHETIC")
